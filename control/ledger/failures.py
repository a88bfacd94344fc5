"""Finally failed tasks: noted once each, looked through, done again or put aside; and who was told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.names import CATALOGUE
from control.errors import Conflict, NotFound
from control.ledger import outbox, replays, streams, tasks
from control.ledger.base import new_id, now
from control.ledger.models import Replay
from control.ledger.task_models import FailedTask, FailedTaskAction, ScheduleRow

# Those that come together are told of together, and not more than so often.
_GATHER: Final = timedelta(seconds=10)
_QUIET: Final = timedelta(minutes=15)
_NOTICE: Final = "notify.failed-tasks"
HIDDEN: Final = "***"


def note(session: Session, row: FailedTask) -> bool:
    """A task failed finally; False where that is known already. Its state follows, and so does the administrators'
    notice."""
    row.id, row.received_at, row.state = new_id("fail"), now(), "open"
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    tasks.finish(session, row.task_id, "EXPIRED" if row.reason == "expired" else "FAILURE")
    if row.task != names.SEND_ADMIN_NOTIFICATION.name:
        _notify(session)
    return True


def page(
    session: Session,
    *,
    limit: int,
    after: str | None = None,
    task: str | None = None,
    reason: str | None = None,
    state: str | None = "open",
) -> Sequence[FailedTask]:
    """Newest first, those older than `after`."""
    query = select(FailedTask).order_by(FailedTask.id.desc()).limit(limit)
    for column, value in ((FailedTask.task, task), (FailedTask.reason, reason), (FailedTask.state, state)):
        if value:
            query = query.where(column == value)
    if after:
        query = query.where(FailedTask.id < after)
    return session.scalars(query).all()


def get(session: Session, failed_id: str) -> FailedTask:
    """Raises NotFound."""
    found = session.get(FailedTask, failed_id, populate_existing=True)
    if found is None:
        raise NotFound(noun="failed task", key=failed_id)
    return found


def actions(session: Session, failed_id: str) -> Sequence[FailedTaskAction]:
    """What was done to it, in order."""
    query = select(FailedTaskAction).where(FailedTaskAction.failed_id == failed_id).order_by(FailedTaskAction.id)
    return session.scalars(query).all()


def replay(session: Session, failed_id: str, actor: str) -> FailedTask:
    """Have it done again, by its own queue; the same id, so that an effect it had after all counts once. A part of a
    replay is made again with all that is missing of it. Replaying twice is the same as once.

    Raises Conflict where it was discarded, cannot be read, or had secrets, which are not kept.
    """
    row = get(session, failed_id)
    if row.state == "replayed":
        return row
    spec = CATALOGUE.get(row.task)
    if row.state == "discarded":
        raise Conflict(reason=f"The failed task {failed_id} was discarded.")
    if spec is None or row.payload is None:
        raise Conflict(reason=f"The failed task {failed_id} ({row.task}) cannot be read: there is nothing to do again.")
    if any(row.payload.get(name) == HIDDEN for name in spec.secret):
        raise Conflict(reason=f"The failed task {failed_id} had secret arguments, which are not kept: start it anew.")
    if not _move(session, row, "replayed", actor, replayed_as=row.task_id):
        return get(session, failed_id)
    if spec.reports_to_replay and (owner := session.get(Replay, row.key)):
        if owner.state in replays.FINAL:
            streams.retry(session, owner.stream_id)
        return row
    tasks.reopen(session, row.task_id)
    outbox.add(session, spec, row.payload, task_id=row.task_id)
    return row


def discard(session: Session, failed_id: str, actor: str, reason: str | None = None) -> FailedTask:
    """Put it aside for good. Discarding twice is the same as once. Raises Conflict where it was replayed."""
    row = get(session, failed_id)
    if row.state == "replayed":
        raise Conflict(reason=f"The failed task {failed_id} was replayed.")
    if row.state == "open" and _move(session, row, "discarded", actor, note=reason):
        tasks.finish(session, row.task_id, "DISCARDED")
    return row


def open_by_task(session: Session) -> dict[str, int]:
    """How many nobody has seen to, by task."""
    query = select(FailedTask.task, func.count()).where(FailedTask.state == "open").group_by(FailedTask.task)
    return {task: number for task, number in session.execute(query)}  # noqa: C416  (dict() has no type for rows)


@dataclass(frozen=True)
class Group:
    """Failures of one kind, for a notice."""

    task: str
    reason: str
    code: str
    count: int
    first_at: datetime
    last_at: datetime
    example: str


def untold(session: Session, until: datetime) -> list[Group]:
    """Failures the administrators were not told of, noted up to `until`, by kind, most first."""
    kind = (FailedTask.task, FailedTask.reason, FailedTask.code)
    rows = session.execute(
        select(
            *kind,
            func.count(),
            func.min(FailedTask.failed_at),
            func.max(FailedTask.failed_at),
            func.min(FailedTask.detail),
        )
        .where(FailedTask.notified_at.is_(None), FailedTask.received_at <= until)
        .group_by(*kind)
        .order_by(func.count().desc(), *kind)
    )
    return [Group(*row) for row in rows]


def told(session: Session, until: datetime) -> None:
    """The administrators know of all that was noted up to `until`."""
    mine = update(FailedTask).where(FailedTask.notified_at.is_(None), FailedTask.received_at <= until)
    session.execute(mine.values(notified_at=now()))


def _notify(session: Session) -> None:
    """Have the administrators told, unless that is planned already."""
    at = now()
    row = session.get(ScheduleRow, _NOTICE, with_for_update=True)
    if row is None:
        try:
            with session.begin_nested():
                session.add(ScheduleRow(name=_NOTICE, last_run_at=at - _QUIET, runs=0))
        except IntegrityError:
            return  # another is at it
        row = session.get_one(ScheduleRow, _NOTICE, with_for_update=True)
    if row.last_run_at > at:
        return
    row.last_run_at = max(at + _GATHER, row.last_run_at + _QUIET)
    row.runs += 1
    delay = (row.last_run_at - at).total_seconds()
    outbox.add(session, names.SEND_ADMIN_NOTIFICATION, {}, delay_seconds=delay)


def _move(
    session: Session, row: FailedTask, state: str, actor: str, *, note: str | None = None, **changes: Any
) -> bool:
    """From open to `state`, and who did it; False where somebody else was quicker."""
    mine = update(FailedTask).where(FailedTask.id == row.id, FailedTask.state == "open")
    moved = bool(session.execute(mine.values(state=state, **changes)).rowcount == 1)  # type: ignore[attr-defined]
    if moved:
        session.refresh(row)
        session.add(FailedTaskAction(failed_id=row.id, action=state, actor=actor, note=note, at=now()))
    return moved
