"""Messages decided on together with the facts they follow from; the relay puts them on the bus."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from control.bus.names import CATALOGUE, HIGH, TaskSpec, business_key
from control.ledger import commits, tasks
from control.ledger.base import now
from control.ledger.models import OutboxRow

EVENT: Final = "event:"
"""What the rows of events start with, where others have a task's name."""
_URGENT: Final = [spec.name for spec in CATALOGUE.values() if spec.queue == HIGH]


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
        tasks.pending(session, task_id, spec, business_key(spec, payload))
    session.add(
        OutboxRow(
            task_id=task_id,
            task=spec.name,
            payload=payload,
            created_at=at,
            available_at=at + timedelta(seconds=delay_seconds),
        )
    )
    return task_id


def announce(session: Session, name: str, body: dict[str, Any]) -> None:
    """Have the event `name` told to whoever listens, once this transaction is committed."""
    at = now()
    session.add(OutboxRow(task=f"{EVENT}{name}", payload=body, created_at=at, available_at=at))


def due(session: Session, limit: int) -> Sequence[OutboxRow]:
    """The oldest rows whose time has come, but for those another relay has in hand; what is for `high_priority` before
    all else: a code by SMS does not wait until a thousand mails are sent."""
    later = case((OutboxRow.task.in_(_URGENT), 0), else_=1)
    rows = select(OutboxRow).where(OutboxRow.available_at <= now()).order_by(later, OutboxRow.id).limit(limit)
    return session.scalars(rows.with_for_update(skip_locked=True)).all()


def sent(session: Session, ids: Sequence[int]) -> None:
    """These rows are on the bus."""
    if not ids:
        return
    session.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))


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
