"""Finally failed tasks: noted once each, looked through, done again or put aside; and who was told of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.names import CATALOGUE, TaskSpec
from control.errors import AfterliveError, Conflict, NotFound
from control.ledger import outbox, parts, replays, streams, tasks
from control.ledger.base import new_id, now
from control.ledger.models import Part, Replay
from control.ledger.task_models import FailedTask, FailedTaskAction, ScheduleRow

# Those that come together are told of together, and not more than so often.
_GATHER: Final = timedelta(seconds=10)
_QUIET: Final = timedelta(minutes=15)
_NOTICE: Final = "notify.failed-tasks"
_BATCH: Final = 500  # ids in one statement
HIDDEN: Final = "***"
UNKNOWN: Final = "unknown"
"""Task id of a message that had none."""


def note(session: Session, row: FailedTask) -> bool:
    """A task failed finally; False where that is known already. Its state follows, and so does the administrators'
    notice."""
    row.id, row.received_at, row.state = new_id("fail"), now(), "open"
    _make_fit(row)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    tasks.finish(session, row.task_id, "EXPIRED" if row.reason == "expired" else "FAILURE")
    if row.task != names.SEND_ADMIN_NOTIFICATION.name:
        notify(session)
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


def last_of(session: Session, task_ids: Iterable[str]) -> dict[str, FailedTask]:
    """Of each task that ever failed finally, its last failure."""
    query = select(FailedTask).where(FailedTask.task_id.in_(list(task_ids))).order_by(FailedTask.id)
    return {row.task_id: row for row in session.scalars(query)}


def of_key(session: Session, key: str, limit: int) -> Sequence[FailedTask]:
    """Failures about `key`, newest first."""
    query = select(FailedTask).where(FailedTask.key == key).order_by(FailedTask.id.desc()).limit(limit)
    return session.scalars(query).all()


def replay(session: Session, failed_id: str, actor: str) -> FailedTask:
    """Have it done again, by its own queue; the same id, so that an effect it had after all counts once, and a deadline
    that counts from now. A part of a replay that failed is made again with all that is missing of it. Replaying twice
    is the same as once.

    Raises Conflict where it was discarded, cannot be read, had secrets, which are not kept, or is a part of a replay
    that is not to be made, or being made.
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
    with session.begin_nested():  # refused, it is open again, whatever else the transaction does
        moved = _move(session, row, "replayed", actor)
        if moved:
            owner = session.get(Replay, row.key) if spec.reports_to_replay and row.key else None
            row.replayed_as = _make_again(session, owner, spec, row) if owner else _send_again(session, spec, row)
    return row if moved else replay(session, failed_id, actor)  # somebody was quicker: with what?


def _make_again(session: Session, owner: Replay, spec: TaskSpec, row: FailedTask) -> str | None:
    """A part that failed, of a replay; None where the replay's retry has it made, by tasks that are still to come."""
    streams.get(session, owner.stream_id, lock=True)  # first the stream, as all do that lock both
    owner = replays.lock(session, owner.id)
    if owner.state == "cancelled":
        raise Conflict(reason=f"The replay {owner.id} was cancelled; only its stream's retry makes it after all.")
    if owner.state in replays.FINAL:
        streams.retry(session, owner.stream_id)
        return None
    job: dict[str, Any] = (row.payload or {}).get("job") or {}
    if job.get("run") != owner.run:
        return None  # a later run makes it
    # The replay goes on without it (pictures): with it after all.
    part = str(job.get("part"))
    if parts.send_again(session, owner.id, part):
        return _send_again(session, spec, row)
    found = session.get(Part, (owner.id, part), populate_existing=True)
    state = "was made since" if found is not None and found.state == "done" else "is being made"
    raise Conflict(reason=f"The part {part} of the replay {owner.id} {state}.")


def _send_again(session: Session, spec: TaskSpec, row: FailedTask) -> str:
    task_id = row.task_id if row.task_id != UNKNOWN else None
    if task_id:
        tasks.reopen(session, task_id)
    return outbox.add(session, spec, row.payload or {}, task_id=task_id)


def discard(session: Session, failed_id: str, actor: str, reason: str | None = None) -> FailedTask:
    """Put it aside for good. Discarding twice is the same as once. Raises Conflict where it was replayed."""
    row = get(session, failed_id)
    if row.state == "replayed":
        raise Conflict(reason=f"The failed task {failed_id} was replayed.")
    if row.state == "open":
        if not _move(session, row, "discarded", actor, note=reason):
            return discard(session, failed_id, actor, reason)  # somebody was quicker: with what?
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


@dataclass(frozen=True)
class Untold:
    """Failures the administrators were not told of."""

    groups: list[Group]
    """By kind, most first."""
    ids: Sequence[str]


def untold(session: Session) -> Untold:
    """Of one moment, where the session reads one."""
    mine = FailedTask.notified_at.is_(None)
    kind = (FailedTask.task, FailedTask.reason, FailedTask.code)
    # What an error says that nobody foresaw may be anything, and a mail leaves the house.
    fit = case((FailedTask.code == AfterliveError.code, FailedTask.exception), else_=FailedTask.detail)
    first, last = func.min(FailedTask.failed_at), func.max(FailedTask.failed_at)
    example = func.coalesce(func.min(fit), "")
    query = select(*kind, func.count(), first, last, example).where(mine).group_by(*kind)
    rows = session.execute(query.order_by(func.count().desc(), *kind))
    return Untold([Group(*row) for row in rows], session.scalars(select(FailedTask.id).where(mine)).all())


def told(session: Session, ids: Sequence[str]) -> None:
    """The administrators know of these. By id: those noted meanwhile are not among them, and have their own notice,
    even where who noted them took this one for theirs."""
    _lock_notice(session)
    at = now()
    for first in range(0, len(ids), _BATCH):
        mine = update(FailedTask).where(FailedTask.id.in_(ids[first : first + _BATCH]))
        session.execute(mine.values(notified_at=at))
    others = select(FailedTask.id).where(
        FailedTask.notified_at.is_(None), FailedTask.task != names.SEND_ADMIN_NOTIFICATION.name
    )
    if session.scalar(others.limit(1)) is not None:
        notify(session)


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove those that were replayed or discarded before a moment, at most `limit`, with who did it; how many."""
    since = select(FailedTaskAction.id).where(
        FailedTaskAction.failed_id == FailedTask.id, FailedTaskAction.at >= before
    )
    done = FailedTask.state.in_(("replayed", "discarded"))
    # Who received it long ago and saw to it yesterday may want to look at it again.
    old = select(FailedTask.id).where(done, FailedTask.received_at < before, ~since.exists())
    ids = session.scalars(old.order_by(FailedTask.id).limit(limit)).all()
    for first in range(0, len(ids), _BATCH):
        some = ids[first : first + _BATCH]
        session.execute(delete(FailedTaskAction).where(FailedTaskAction.failed_id.in_(some)))
        session.execute(delete(FailedTask).where(FailedTask.id.in_(some)))
    return len(ids)


def notify(session: Session) -> None:
    """Have the administrators told, unless that is planned already."""
    row = _lock_notice(session)
    at = now()  # by the time the row is ours
    if row.last_run_at > at:
        return
    row.last_run_at = max(at + _GATHER, row.last_run_at + _QUIET)
    row.runs += 1
    delay = (row.last_run_at - at).total_seconds()
    outbox.add(session, names.SEND_ADMIN_NOTIFICATION, {}, delay_seconds=delay)


def _lock_notice(session: Session) -> ScheduleRow:
    """When the last notice is due, for this transaction alone."""
    row = session.get(ScheduleRow, _NOTICE, with_for_update=True)
    if row is None:
        try:
            with session.begin_nested():
                session.add(ScheduleRow(name=_NOTICE, last_run_at=now() - _QUIET, runs=0))
        except IntegrityError:
            pass  # another was quicker, and is done with it
        row = session.get_one(ScheduleRow, _NOTICE, with_for_update=True)
    return row


def _make_fit(row: FailedTask) -> None:
    """Whatever it says, the database takes it: what it does not take would come back, and keep all others waiting."""
    for column in FailedTask.__table__.columns:
        value = getattr(row, column.key)
        if isinstance(value, str):
            # PostgreSQL's text has no NUL, and no half of a surrogate pair.
            text = value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
            setattr(row, column.key, text[: getattr(column.type, "length", None)])
    try:
        json.dumps(row.payload, allow_nan=False)
    except ValueError:
        row.payload = None


def _move(session: Session, row: FailedTask, state: str, actor: str, *, note: str | None = None) -> bool:
    """From open to `state`, and who did it; False where somebody else was quicker."""
    mine = update(FailedTask).where(FailedTask.id == row.id, FailedTask.state == "open")
    moved = bool(session.execute(mine.values(state=state)).rowcount == 1)  # type: ignore[attr-defined]
    if moved:
        session.refresh(row)
        session.add(FailedTaskAction(failed_id=row.id, action=state, actor=actor, note=note, at=now()))
    return moved
