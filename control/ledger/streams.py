"""Streams: they are created, they end, and their replay is made, cancelled or tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import AfterliveError, Conflict, NotFound
from control.ledger import events, outbox, parts, replays
from control.ledger.base import LOCK, new_id, now
from control.ledger.models import Replay, Stream


def create(
    session: Session,
    *,
    title: str,
    seller_id: str | None = None,
    stream_id: str | None = None,
    recording: str | None = None,
) -> Stream:
    """A new stream. Creating one again, with the same id and content, gives the first; other content is a Conflict."""
    if stream_id and (known := session.get(Stream, stream_id)):
        if (known.title, known.seller_id) != (title, seller_id) or (recording and recording != known.recording):
            raise Conflict(reason=f"There is a stream {stream_id} already, with other content.")
        return known
    stream = Stream(
        id=stream_id or new_id("str"),
        title=title,
        seller_id=seller_id,
        recording=recording,
        state="live",
        created_at=now(),
    )
    try:
        with session.begin_nested():
            session.add(stream)
    except IntegrityError:
        if stream_id is None or session.get(Stream, stream_id) is None:
            raise
        # Somebody else created it at this very moment.
        return create(session, title=title, seller_id=seller_id, stream_id=stream_id, recording=recording)
    return stream


def get(session: Session, stream_id: str, *, lock: bool = False) -> Stream:
    """The stream; with `lock`, for this transaction alone to decide on. Raises NotFound."""
    found = session.get(Stream, stream_id, with_for_update=LOCK if lock else None)
    if found is None:
        raise NotFound(noun="stream", key=stream_id)
    return found


def page(session: Session, *, limit: int, after: str | None = None, state: str | None = None) -> Sequence[Stream]:
    """Newest first, those older than the stream `after`. `state` is a stream's or its replay's."""
    query = select(Stream).order_by(Stream.created_at.desc(), Stream.id.desc()).limit(limit)
    if after:
        last = get(session, after)
        query = query.where(tuple_(Stream.created_at, Stream.id) < (last.created_at, last.id))
    if state:
        query = query.outerjoin(Replay).where((Stream.state == state) | (Replay.state == state))
    return session.scalars(query).all()


@dataclass(frozen=True)
class Ending:
    """A stream ended."""

    stream_id: str
    recording: str | None = None


def end(session: Session, stream_id: str, *, recording: str | None) -> Replay:
    """The stream ended: its replay, waiting to be made. Ending twice is the same replay; ending with another
    recording, or with none at all, is a Conflict."""
    (found,) = end_all(session, [Ending(stream_id, recording)])
    if isinstance(found, AfterliveError):
        raise found
    return found[1]


def end_all(session: Session, endings: Sequence[Ending]) -> list[tuple[Stream, Replay] | AfterliveError]:
    """As `end`, of several at once, in as many statements as of one; for each its stream and replay, or its error."""
    ids = {ending.stream_id for ending in endings}
    # In one order, whoever locks several: so none wait for each other.
    query = select(Stream).where(Stream.id.in_(ids)).order_by(Stream.id).with_for_update(key_share=True)
    locked = {stream.id: stream for stream in session.scalars(query)}
    ended = {replay.stream_id: replay for replay in session.scalars(select(Replay).where(Replay.stream_id.in_(ids)))}
    known = set(ended)
    found: list[tuple[Stream, Replay] | AfterliveError] = []
    for ending in endings:
        try:
            stream = locked.get(ending.stream_id)
            if stream is None:
                raise NotFound(noun="stream", key=ending.stream_id)
            replay = ended[stream.id] = _ended(stream, ended.get(stream.id), ending.recording)
            found.append((stream, replay))
        except AfterliveError as error:
            found.append(error)
    new = [replay for stream_id, replay in ended.items() if stream_id not in known]
    session.add_all(new)
    session.flush()
    events.record_all(session, [(replay.stream_id, "stream.ended", {"replay_id": replay.id}) for replay in new])
    for replay in new:
        _tell(session, "stream.ended", replay)
    return found


def _ended(stream: Stream, replay: Replay | None, recording: str | None) -> Replay:
    if replay is not None:
        if recording and recording != replay.source:
            raise Conflict(reason=f"The stream {stream.id} ended with another recording already.")
        return replay
    source = recording or stream.recording
    if not source:
        raise Conflict(reason=f"The stream {stream.id} has no recording.")
    at = now()
    # Nobody else decides on it meanwhile: it is locked.
    stream.state, stream.ended_at, stream.recording = "ended", at, source
    replay_id = new_id("rep")
    return Replay(
        id=replay_id,
        stream_id=stream.id,
        state="waiting",
        run=1,
        source=source,
        prefix=f"replays/{replay_id}/",
        version=1,
        frames_total=0,
        published_chunks=0,
        created_at=at,
        updated_at=at,
    )


def cancel(session: Session, stream_id: str) -> Replay:
    """Stop making the replay. Cancelling twice is the same as once; a finished replay is a Conflict."""
    replay = _replay_of(session, stream_id)
    if replay.state == "cancelled":
        return replay
    if not replays.move(session, replay, replays.ACTIVE, "cancelled"):
        raise Conflict(reason=f"The replay of {stream_id} is {replay.state}.")
    parts.stop_all(session, replay.id, "cancelled")
    _tell(session, "replay.cancelled", replay)
    return replay


def retry(session: Session, stream_id: str) -> Replay:
    """Make a failed or cancelled replay after all; finished parts of a failed one are kept."""
    replay = _replay_of(session, stream_id)
    if replay.state in replays.ACTIVE:
        return replay
    was_cancelled = replay.state == "cancelled"
    run = replay.run + 1
    changes: dict[str, Any] = {"problem_code": None, "problem_detail": None, "finished_at": None, "playable_at": None}
    # Whoever still writes playlists for the earlier run keeps its claim: this run's come after it.
    changes |= {"run": run, "published_chunks": 0, "state": "waiting"}
    if was_cancelled:
        # What it had is being removed; a new place keeps the two apart, and it starts from nothing.
        changes |= {"prefix": f"replays/{replay.id}.{run}/", "frames_total": 0}
        changes |= dict.fromkeys(("inits", "info", "plan", "notes", "started_at", "planned_at"))
    where = (Replay.id == replay.id) & (Replay.run == replay.run) & Replay.state.in_(("failed", "cancelled"))
    moved = session.execute(update(Replay).where(where).values(changes))
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict(reason=f"The replay of {stream_id} is {replay.state}.")
    replays.touch(session, replay.id)
    session.refresh(replay)
    if was_cancelled:
        parts.forget(session, replay.id)
    else:
        parts.renew(session, replay.id)
    events.record(session, stream_id, "replay.retried", replay_id=replay.id, run=run)
    _tell(session, "replay.retried", replay)
    return replay


def _tell(session: Session, fact: str, replay: Replay) -> None:
    """Have the workflow of `fact` started (pipelines.workflows)."""
    facts = {"replay_id": replay.id, "run": replay.run, "prefix": replay.prefix}
    outbox.add(session, names.HANDLE_FACT, {"fact": fact, "facts": facts})


def _replay(session: Session, stream_id: str) -> Replay | None:
    query = select(Replay).where(Replay.stream_id == stream_id)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def _replay_of(session: Session, stream_id: str) -> Replay:
    get(session, stream_id, lock=True)
    found = _replay(session, stream_id)
    if found is None:
        raise Conflict(reason=f"The stream {stream_id} has not ended yet.")
    return found
