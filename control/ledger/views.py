"""What the API and the command line show of a stream, of one moment."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control.bus.messages import Note, Problem
from control.ledger import streams
from control.ledger.base import now
from control.ledger.models import EventRow, Part, Replay, Stream


class ReplayView(BaseModel):
    """A replay and how far it has come."""

    id: str
    state: str = Field(description="waiting, probing, transcoding, completed, failed or cancelled")
    playable: bool = Field(description="Whether its playlists can be played already")
    progress: float = Field(description="0 to 1", examples=[0.42])
    frames_done: int
    frames_total: int
    fps: float = Field(description="Frames of the recording transcoded per second, all workers together")
    speed: float = Field(description="Seconds of recording transcoded per second")
    eta_seconds: float | None = Field(description="About how long it still takes")
    chunks_done: int
    chunks_total: int
    problem: Problem | None = Field(description="Why it failed")
    notes: list[Note] = Field(description="What could not be kept of the recording")
    prefix: str
    created_at: datetime
    started_at: datetime | None
    playable_at: datetime | None
    finished_at: datetime | None


class StreamView(BaseModel):
    """A stream and its replay."""

    id: str
    title: str
    seller_id: str | None
    state: str = Field(description="live or ended")
    created_at: datetime
    ended_at: datetime | None
    replay: ReplayView | None
    version: str = Field(description="Changes when anything of this changed")


class Event(BaseModel):
    """Something that happened to a stream."""

    id: int
    name: str
    at: datetime
    data: dict[str, Any]


def snapshot(session: Session, stream_id: str) -> StreamView:
    """The stream as it is now. Raises NotFound."""
    stream = streams.get(session, stream_id)
    return of(session, stream, session.scalars(select(Replay).where(Replay.stream_id == stream_id)).one_or_none())


def replay_state(session: Session, stream_id: str) -> str | None:
    """Only that; None where the stream has no replay."""
    return session.scalar(select(Replay.state).where(Replay.stream_id == stream_id))


def of(session: Session, stream: Stream, replay: Replay | None) -> StreamView:
    """As `snapshot`, of rows that are at hand."""
    return StreamView(
        id=stream.id,
        title=stream.title,
        seller_id=stream.seller_id,
        state=stream.state,
        created_at=stream.created_at,
        ended_at=stream.ended_at,
        replay=_replay_view(session, replay) if replay else None,
        version=f"{stream.state}-{replay.run}-{replay.version}" if replay else stream.state,
    )


def events_after(session: Session, stream_id: str, after_id: int) -> list[Event]:
    """What happened since the event `after_id`, oldest first."""
    query = select(EventRow).where(EventRow.stream_id == stream_id, EventRow.id > after_id).order_by(EventRow.id)
    return [Event.model_validate(row, from_attributes=True) for row in session.scalars(query)]


def _replay_view(session: Session, replay: Replay) -> ReplayView:
    new = replay.state == "waiting" and replay.run == 1  # has no parts yet: nothing to ask for
    sums = {} if new else _sums(session, replay.id)
    chunks = sums.get("chunk", {})
    done = sum(row[1] for row in chunks.values())
    total = replay.frames_total
    fps = chunks.get("sent", (0, 0, 0.0))[2]
    grid_rate = _rate(session, replay) if fps else 0.0
    left = max(total - done, 0)
    rate = fps or _average_fps(replay, done)
    running = replay.state == "transcoding"
    return ReplayView(
        id=replay.id,
        state=replay.state,
        playable=replay.playable_at is not None,
        progress=_progress(replay, sums, done),
        frames_done=done,
        frames_total=total,
        fps=round(fps, 1),
        speed=round(fps / grid_rate, 2) if grid_rate else 0.0,
        eta_seconds=round(left / rate, 1) if running and rate > 0 else None,
        chunks_done=chunks.get("done", (0, 0, 0.0))[0],
        chunks_total=sum(row[0] for row in chunks.values()),
        problem=Problem(code=replay.problem_code, detail=replay.problem_detail or "") if replay.problem_code else None,
        notes=[Note.model_validate(note) for note in replay.notes or []],
        prefix=replay.prefix,
        created_at=replay.created_at,
        started_at=replay.started_at,
        playable_at=replay.playable_at,
        finished_at=replay.finished_at,
    )


def _sums(session: Session, replay_id: str) -> dict[str, dict[str, tuple[int, int, float]]]:
    """kind → state → (parts, frames done, fps)."""
    query = select(Part.kind, Part.state, func.count(), func.sum(Part.done_frames), func.sum(Part.fps))
    sums: dict[str, dict[str, tuple[int, int, float]]] = {}
    for kind, state, number, frames, fps in session.execute(
        query.where(Part.replay_id == replay_id).group_by(Part.kind, Part.state)
    ):
        sums.setdefault(kind, {})[state] = (number, int(frames or 0), float(fps or 0))
    return sums


def _progress(replay: Replay, sums: dict[str, dict[str, tuple[int, int, float]]], frames_done: int) -> float:
    if replay.state == "completed":
        return 1.0
    if not replay.frames_total:
        return 0.0
    # Sound, pictures and the last playlists are the final two in a hundred.
    rest = [state for kind in ("audio", "pictures") for state, row in sums.get(kind, {}).items() for _ in range(row[0])]
    share = rest.count("done") / len(rest) if rest else 1.0
    return round(min(0.98 * frames_done / replay.frames_total + 0.019 * share, 0.999), 4)


def _rate(session: Session, replay: Replay) -> float:
    # Out of a plan of hundreds of chunks, this alone.
    rate = session.scalar(select(Replay.plan["frame_rate"].as_string()).where(Replay.id == replay.id))
    return float(Fraction(rate)) if rate else 0.0


def _average_fps(replay: Replay, frames_done: int) -> float:
    if replay.planned_at is None or not frames_done:
        return 0.0
    return frames_done / max((now() - replay.planned_at).total_seconds(), 0.001)
