"""Tasks by the id of their message: how they ended, and the inbox that lets each have its effect once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control import telemetry
from control.bus.context import Delivery, current_delivery
from control.bus.names import TaskSpec
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.task_models import TaskRow

FINAL: Final = ("SUCCESS", "FAILURE", "EXPIRED", "DISCARDED")


def pending(session: Session, task_id: str, spec: TaskSpec, key: str | None) -> None:
    """It was decided on."""
    session.add(TaskRow(id=task_id, task=spec.name, queue=spec.queue, key=key, state="PENDING", created_at=now()))


def once(ledger: Ledger, effect: Callable[[Session], None]) -> bool:
    """Have `effect` in one transaction with the note that this task, the one this thread works on, had it; False where
    it had it before. Outside a task it is just a transaction."""
    delivery = current_delivery()
    with ledger.write() as session:
        if delivery is not None and not _claim(session, delivery):
            telemetry.DUPLICATES.labels(delivery.task).inc()
            return False
        effect(session)
    return True


def _claim(session: Session, delivery: Delivery) -> bool:
    """SUCCESS, where it was not so already. Of two at the same time the second waits for the first to be committed."""
    at = now()
    mine = update(TaskRow).where(TaskRow.id == delivery.task_id, TaskRow.state != "SUCCESS")
    if _changed(session, mine.values(state="SUCCESS", finished_at=at)):
        return True
    try:
        with session.begin_nested():  # a message that no outbox sent has no row yet
            row = TaskRow(
                id=delivery.task_id,
                task=delivery.task,
                queue=delivery.queue,
                key=delivery.key,
                state="SUCCESS",
                created_at=at,
                finished_at=at,
            )
            session.add(row)
    except IntegrityError:
        return False
    return True


def finish(session: Session, task_id: str, state: str) -> bool:
    """How a task ended, where that is not known yet. What succeeded stays so; a failure may be discarded."""
    before = ("PENDING", "FAILURE", "EXPIRED") if state == "DISCARDED" else ("PENDING",)
    mine = update(TaskRow).where(TaskRow.id == task_id, TaskRow.state.in_(before))
    return _changed(session, mine.values(state=state, finished_at=now()))


def reopen(session: Session, task_id: str) -> None:
    """It is to be done after all."""
    mine = update(TaskRow).where(TaskRow.id == task_id, TaskRow.state.in_(("FAILURE", "EXPIRED", "DISCARDED")))
    session.execute(mine.values(state="PENDING", finished_at=None))


def get(session: Session, task_id: str) -> TaskRow | None:
    return session.get(TaskRow, task_id)


def of_key(session: Session, key: str, limit: int = 100) -> Sequence[TaskRow]:
    """Those about `key`, newest first."""
    query = select(TaskRow).where(TaskRow.key == key).order_by(TaskRow.created_at.desc(), TaskRow.id).limit(limit)
    return session.scalars(query).all()


def forget(session: Session, before: datetime) -> int:
    """Remove those that ended before a moment so far back that no message of theirs can still come; how many."""
    gone = session.execute(delete(TaskRow).where(TaskRow.finished_at < before))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def _changed(session: Session, statement: object) -> bool:
    return bool(session.execute(statement).rowcount == 1)  # type: ignore[call-overload]
