"""The parts of a replay and their legal transitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from control.ledger import replays
from control.ledger.base import now
from control.ledger.models import Part


def add(session: Session, replay_id: str, kind: str, number: int, total_frames: int = 0) -> Part:
    """A pending part. Its name is its kind, with the number where there can be several."""
    part = Part(
        replay_id=replay_id,
        name=name(kind, number),
        kind=kind,
        number=number,
        state="pending",
        total_frames=total_frames,
    )
    session.add(part)
    return part


def name(kind: str, number: int) -> str:
    if kind == "chunk":
        return f"chunk-{number:05d}"
    return kind if number == 0 else f"{kind}-{number + 1}"


def move(session: Session, replay_id: str, part: str, before: tuple[str, ...], after: str, **changes: Any) -> bool:
    """Compare-and-set as in `replays.move`."""
    where = (Part.replay_id == replay_id) & (Part.name == part) & Part.state.in_(before)
    moved = session.execute(update(Part).where(where).values(state=after, **changes))
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return False
    replays.touch(session, replay_id)
    return True


def mark_sent(session: Session, part: Part) -> bool:
    at = now()
    changes = {"sent_at": at, "heartbeat_at": at, "done_frames": 0, "fps": 0.0}
    return move(session, part.replay_id, part.name, ("pending", "sent"), "sent", **changes)


def send_again(session: Session, replay_id: str, part: str) -> bool:
    """One that failed is on the bus again; False where it did not fail."""
    at = now()
    return move(session, replay_id, part, ("failed",), "sent", sent_at=at, heartbeat_at=at, done_frames=0, fps=0.0)


def refuse(session: Session, part: Part) -> bool:
    """Whoever took it could not have its encoder; it is on the bus again."""
    at = now()
    changes = {"refused": Part.refused + 1, "sent_at": at, "heartbeat_at": at, "done_frames": 0, "fps": 0.0}
    sent = move(session, part.replay_id, part.name, ("sent",), "sent", **changes)
    session.refresh(part)
    return sent


def make_again(session: Session, replay_id: str, kept: Collection[str]) -> int:
    """All chunks are pending, for another plan: of those that are done, the tracks `kept` (by name) stay; how many
    those were."""
    again = 0
    for part in of_replay(session, replay_id, kind="chunk"):
        again += part.state == "done"
        tracks = [track for track in (part.result or {}).get("tracks", ()) if track["name"] in kept]
        result = {**(part.result or {}), "tracks": tracks} if tracks else None
        changes = {"result": result, "done_at": None, "done_frames": 0, "fps": 0.0, "refused": 0}
        move(session, replay_id, part.name, ("pending", "sent", "done"), "pending", **changes)
    return again


def mark_done(session: Session, replay_id: str, part: str, result: dict[str, Any]) -> bool:
    changes = {"result": result, "done_at": now(), "done_frames": Part.total_frames, "fps": 0.0}
    return move(session, replay_id, part, ("pending", "sent", "failed"), "done", **changes)


def progress(
    session: Session, replay_id: str, run: int, part: str, done_frames: int, total_frames: int, fps: float
) -> None:
    """Progress of a part that runs: never counts backwards, means nothing once it is done."""
    if session.get(Part, (replay_id, part)) is None:
        return
    replay = replays.lock(session, replay_id)  # as all do that change parts: first the replay, so that none deadlock
    row = session.get_one(Part, (replay_id, part), populate_existing=True)
    if row.state != "sent" or replay.run != run:
        return
    share = round(row.total_frames * min(done_frames / max(total_frames, 1), 1.0))
    where = (Part.replay_id == replay_id) & (Part.name == part) & (Part.state == "sent")
    values = {"done_frames": max(share, row.done_frames), "fps": fps, "heartbeat_at": now()}
    session.execute(update(Part).where(where).values(values))
    replays.touch(session, replay_id)


def stop_all(session: Session, replay_id: str, state: str) -> None:
    """Parts that are not done leave the bus: they become `state`."""
    where = (Part.replay_id == replay_id) & Part.state.in_(("pending", "sent"))
    session.execute(update(Part).where(where).values(state=state, fps=0.0))


def renew(session: Session, replay_id: str) -> None:
    """Parts that are not done are pending again."""
    where = (Part.replay_id == replay_id) & (Part.state != "done")
    session.execute(update(Part).where(where).values(state="pending", done_frames=0, fps=0.0, heartbeat_at=None))


def forget(session: Session, replay_id: str) -> None:
    """The replay has no parts any more."""
    session.execute(delete(Part).where(Part.replay_id == replay_id))


def of_replay(session: Session, replay_id: str, *, kind: str | None = None, state: str | None = None) -> Sequence[Part]:
    """Its parts by kind and number."""
    query = select(Part).where(Part.replay_id == replay_id).order_by(Part.kind, Part.number)
    if kind:
        query = query.where(Part.kind == kind)
    if state:
        query = query.where(Part.state == state)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def count(session: Session, replay_id: str, *states: str, kind: str | None = None) -> int:
    """How many parts are in one of `states`."""
    query = select(func.count()).select_from(Part).where(Part.replay_id == replay_id, Part.state.in_(states))
    if kind:
        query = query.where(Part.kind == kind)
    return session.scalar(query) or 0


def next_pending(session: Session, replay_id: str, kind: str, limit: int) -> Sequence[Part]:
    query = select(Part).where(Part.replay_id == replay_id, Part.kind == kind, Part.state == "pending")
    return session.scalars(query.order_by(Part.number).limit(limit)).all()


def done_in_a_row(session: Session, replay_id: str) -> int:
    """How many chunks are done from the first on without a gap."""
    first_open = select(func.min(Part.number)).where(
        Part.replay_id == replay_id, Part.kind == "chunk", Part.state != "done"
    )
    open_number = session.scalar(first_open)
    return open_number if open_number is not None else count(session, replay_id, "done", kind="chunk")


def silent_since(session: Session, replay_id: str, moment: datetime) -> Sequence[Part]:
    """Parts on the bus that nothing was heard of since `moment`."""
    query = select(Part).where(Part.replay_id == replay_id, Part.state == "sent", Part.heartbeat_at < moment)
    return session.scalars(query).all()
