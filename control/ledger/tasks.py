"""Tasks by the id of their message: how they ended, and the inbox that lets each have its effect once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Exists, Select, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from control import telemetry
from control.bus.context import Delivery, current_delivery
from control.bus.names import TaskSpec
from control.ledger.base import ID_LENGTH, now
from control.ledger.engine import Ledger
from control.ledger.task_models import FailedTask, TaskRow

_TABLE: Final = cast(Table, TaskRow.__table__)


def _claiming(made: Any) -> Any:
    """One statement, whether the task has a row or (no outbox sent it) none yet: half of what a small effect costs is
    the number of statements."""
    row = made(_TABLE)
    done = {"state": row.excluded.state, "finished_at": row.excluded.finished_at}
    mine = row.on_conflict_do_update(index_elements=["id"], set_=done, where=_TABLE.c.state != "SUCCESS")
    return mine.returning(_TABLE.c.id)


_CLAIM: Final = {"sqlite": _claiming(sqlite.insert), "postgresql": _claiming(postgresql.insert)}
FINAL: Final = ("SUCCESS", "FAILURE", "EXPIRED", "DISCARDED")


def pending(task_id: str, spec: TaskSpec, key: str | None, at: datetime, queue: str | None = None) -> dict[str, Any]:
    """The row of one that was decided on; `queue` where it is not the task's usual one."""
    row = {"id": task_id, "task": spec.name, "queue": queue or spec.queue, "key": _fit(key)}
    return row | {"state": "PENDING", "created_at": at}


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
    row = {
        "id": delivery.task_id,
        "task": delivery.task,
        "queue": delivery.queue,
        "key": _fit(delivery.key),
        "state": "SUCCESS",
        "created_at": at,
        "finished_at": at,
    }
    connection = session.connection()
    return connection.scalar(_CLAIM[connection.dialect.name], row) is not None


def finish(session: Session, task_id: str, state: str) -> bool:
    """How a task ended. What succeeded stays so, whatever else is told of it; of failures the first counts, until it is
    discarded."""
    before = {"SUCCESS": ("PENDING", "FAILURE", "EXPIRED", "DISCARDED"), "DISCARDED": ("FAILURE", "EXPIRED")}
    mine = update(TaskRow).where(TaskRow.id == task_id, TaskRow.state.in_(before.get(state, ("PENDING",))))
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


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove those that ended before a moment so far back that no message of theirs can still come, at most `limit`;
    how many. One that failed may be replayed: it is kept as long as its failure is, or an effect it had after all would
    count twice."""
    old = select(TaskRow.id).where(TaskRow.finished_at < before, ~_failed()).order_by(TaskRow.finished_at).limit(limit)
    return _delete(session, old)


def forget_untold(session: Session, before: datetime, limit: int) -> int:
    """Remove those that were decided on before a moment long ago and never told how they ended, as the parts of a
    replay that was cancelled; at most `limit`; how many."""
    untold = TaskRow.finished_at.is_(None) & (TaskRow.created_at < before)
    return _delete(session, select(TaskRow.id).where(untold, ~_failed()).limit(limit))


def _failed() -> Exists:
    return select(FailedTask.id).where(FailedTask.task_id == TaskRow.id).exists()


def _delete(session: Session, chosen: Select[str]) -> int:
    gone = session.execute(delete(TaskRow).where(TaskRow.id.in_(chosen)))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def _fit(key: str | None) -> str | None:
    """A key is for finding, no reason to fail."""
    return key[:ID_LENGTH] if key else None


def _changed(session: Session, statement: object) -> bool:
    return bool(session.execute(statement).rowcount == 1)  # type: ignore[call-overload]
