"""Messages decided on together with the facts they follow from; the relay puts them on the bus.

What a transaction decides on is written when it ends, in two statements, however many messages that is
(`control.ledger.late`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import Row, Table, bindparam, case, delete, func, insert, not_, select, update
from sqlalchemy.orm import Session

from control import tracing
from control.bus.names import CATALOGUE, HIGH, TaskSpec, business_key
from control.bus.routing import queue_of
from control.ledger import commits, late, tasks
from control.ledger.base import now
from control.ledger.models import OutboxRow
from control.ledger.task_models import TaskRow

TRACE: Final = "§trace"
"""Where a row's payload says what it belongs to; no argument is called that, and no message has it."""
EVENT: Final = "event:"
"""What the rows of events start with, where others have a task's name."""
_URGENT: Final = [spec.name for spec in CATALOGUE.values() if spec.queue == HIGH]
_TABLE: Final = cast(Table, OutboxRow.__table__)
_IS_URGENT: Final = _TABLE.c.task.in_(_URGENT)
_DUE: Final = (
    select(_TABLE)
    .where(_TABLE.c.available_at <= bindparam("at"))
    .where(not_(_IS_URGENT) | (_TABLE.c.available_at <= bindparam("urgent_at")))
    .order_by(case((_IS_URGENT, 0), else_=1), _TABLE.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_TASKS: Final = insert(cast(Table, TaskRow.__table__))
_MESSAGES: Final = insert(_TABLE)


def add(
    session: Session, spec: TaskSpec, payload: dict[str, Any], *, delay_seconds: float = 0, task_id: str | None = None
) -> str:
    """Have `spec` sent with `payload` (JSON) once this transaction is committed; the task's id, a new one where it is
    not a task known before that is to be done after all."""
    if spec.name not in CATALOGUE:
        raise ValueError(f"{spec.name} is not in the catalogue")
    at = now()
    commits.announce(session)
    if task_id is None:
        task_id = str(uuid.uuid4())
        pending = tasks.pending(task_id, spec, business_key(spec, payload), at, queue_of(spec, payload))
        late.insert(session, _TASKS, pending)
    late.insert(session, _MESSAGES, _row(task_id, spec.name, payload, at, at + timedelta(seconds=delay_seconds)))
    return task_id


def announce(session: Session, name: str, body: dict[str, Any]) -> None:
    """Have the event `name` told to whoever listens, once this transaction is committed."""
    at = now()
    late.insert(session, _MESSAGES, _row(None, f"{EVENT}{name}", body, at, at))


def _row(task_id: str | None, task: str, payload: dict[str, Any], at: datetime, due: datetime) -> dict[str, Any]:
    if trace := tracing.here():
        payload = payload | {TRACE: trace}
    return {"task_id": task_id, "task": task, "payload": payload, "created_at": at, "available_at": due}


def due(session: Session, limit: int, *, leave_urgent_seconds: float = 0) -> Sequence[Row[Any]]:
    """The oldest rows whose time has come, but for those another relay has in hand; what is for `high_priority` before
    all else: a code by SMS does not wait until a thousand mails are sent. `leave_urgent_seconds`: how long that is left
    to other relays."""
    at = now()
    urgent_at = at - timedelta(seconds=leave_urgent_seconds)
    return session.connection().execute(_DUE, {"at": at, "urgent_at": urgent_at, "most": limit}).all()


def sent(session: Session, ids: Sequence[int]) -> None:
    """These rows are on the bus."""
    if not ids:
        return
    session.connection().execute(delete(_TABLE).where(_TABLE.c.id.in_(ids)))


def postpone(session: Session, ids: Sequence[int], seconds: float) -> None:
    """These rows are not due before `seconds` from now."""
    if not ids:  # as after nearly each look at the outbox
        return
    session.execute(
        update(OutboxRow).where(OutboxRow.id.in_(ids)).values(available_at=now() + timedelta(seconds=seconds))
    )


def depth(session: Session) -> int:
    """How many rows wait."""
    return session.scalar(select(func.count()).select_from(OutboxRow)) or 0


def oldest_due(session: Session) -> datetime | None:
    """Since when the row that waits longest is due; None where none is."""
    return session.scalar(select(func.min(OutboxRow.available_at)).where(OutboxRow.available_at <= now()))
