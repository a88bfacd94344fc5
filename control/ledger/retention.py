"""Old streams: which they are, and what the ledger lets go of them. Their figures and their sales stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Table, delete, or_, select, tuple_, update
from sqlalchemy.orm import Session

from control.ledger import analytics, replays
from control.ledger.analytics_models import StreamAnalytics, ViewEvent
from control.ledger.base import insert_into, now
from control.ledger.models import EventRow, Part, Replay, Stream

REMOVING: Final = "removing"
"""The state of a replay that is being removed: nobody can have it made again until it is."""


@dataclass(frozen=True)
class Old:
    """A stream that is over for long, with its replay."""

    stream_id: str
    title: str
    replay_id: str
    state: str
    """Of the replay."""
    ended_at: datetime
    """When the last of stream and replay did."""


def page(session: Session, before: datetime, *, limit: int, after: Old | None = None) -> Sequence[Old]:
    """Streams that ended before a moment, as did their replays, oldest first; and those whose removal was begun."""
    when = Replay.finished_at
    old = Replay.state.in_(replays.FINAL) & (when < before) & (Stream.ended_at < before)
    begun = Replay.state == REMOVING
    query = select(Stream.id, Stream.title, Replay.id, Replay.state, when).join(Replay, Replay.stream_id == Stream.id)
    query = query.where(Stream.state == "ended", or_(old, begun)).order_by(when, Replay.id).limit(limit)
    if after:
        query = query.where(tuple_(when, Replay.id) > (after.ended_at, after.replay_id))
    return [Old(row[0], row[1], row[2], row[3], row[4]) for row in session.execute(query) if row[4]]


def begin(session: Session, old: Old, before: datetime) -> Replay | None:
    """Decide that it goes: from now on its replay cannot be made again, and nothing more is counted to it. None where
    it is to stay for now: it is made again, or not all of its events are counted yet, which is then asked for."""
    replay = session.get(Replay, old.replay_id, populate_existing=True, with_for_update={"key_share": True})
    if replay is None or (replay.state != REMOVING and not _may_go(replay, before)):
        return None
    row = _locked(session, old.stream_id)
    if row.sealed_at is None:
        if row.counted < row.changes:
            analytics.schedule(session, old.stream_id)
            return None
        mine = update(StreamAnalytics).where(StreamAnalytics.stream_id == old.stream_id)
        session.execute(mine.values(sealed_at=now()))
    if replay.state != REMOVING:
        replays.touch(session, replay.id, state=REMOVING)
        session.refresh(replay)
    return replay


def _may_go(replay: Replay, before: datetime) -> bool:
    return replay.state in replays.FINAL and replay.finished_at is not None and replay.finished_at < before


def _locked(session: Session, stream_id: str) -> Any:
    """The stream's row of figures, made where there is none; others that bring something new wait."""
    table = cast(Table, StreamAnalytics.__table__)
    row = insert_into(session, StreamAnalytics).values(stream_id=stream_id, changes=0, counted=0)
    touched = row.on_conflict_do_update(index_elements=["stream_id"], set_={"changes": table.c.changes})
    return session.execute(touched.returning(table.c.changes, table.c.counted, table.c.sealed_at)).one()


def forget_some(session: Session, stream_id: str, replay_id: str, limit: int) -> int:
    """Remove rows of a stream that goes, at most `limit`; how many there were. The replay itself goes last, with 0."""
    views = select(ViewEvent.id).where(ViewEvent.stream_id == stream_id).limit(limit)
    news = select(EventRow.id).where(EventRow.stream_id == stream_id).limit(limit)
    parts = select(Part.name).where(Part.replay_id == replay_id).limit(limit)
    for statement in (
        delete(ViewEvent).where(ViewEvent.stream_id == stream_id, ViewEvent.id.in_(views)),
        delete(Part).where(Part.replay_id == replay_id, Part.name.in_(parts)),
        delete(EventRow).where(EventRow.id.in_(news)),
    ):
        if gone := int(session.execute(statement).rowcount):  # type: ignore[attr-defined]
            return gone
    session.execute(delete(Replay).where(Replay.id == replay_id, Replay.state == REMOVING))
    return 0
