"""Replays and their legal transitions. Each is a compare-and-set: of two that try, one succeeds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from control.errors import NotFound
from control.ledger import events, webhooks
from control.ledger.base import LOCK, now
from control.ledger.models import Replay

ACTIVE: Final = ("waiting", "probing", "transcoding")
FINAL: Final = ("completed", "failed", "cancelled")
PUBLISHING_LEASE_SECONDS: Final = 20
"""Who writes playlists renews the claim to do so well within this; who does not is gone."""


def get(session: Session, replay_id: str) -> Replay:
    """Raises NotFound."""
    found = session.get(Replay, replay_id, populate_existing=True)
    if found is None:
        raise NotFound(noun="replay", key=replay_id)
    return found


def lock(session: Session, replay_id: str) -> Replay:
    """As `get`, for this transaction alone to decide on: others that want to wait until it ends. (A write transaction
    of SQLite is alone anyway.)"""
    found = session.get(Replay, replay_id, populate_existing=True, with_for_update=LOCK)
    if found is None:
        raise NotFound(noun="replay", key=replay_id)
    return found


def move(session: Session, replay: Replay, before: tuple[str, ...], after: str, **changes: Any) -> bool:
    """From one of the states `before` to `after`, with other columns changed along; False where it was elsewhere.

    Also records the event `replay.{after}` for the final states.
    """
    at = now()
    changes |= {"state": after, "updated_at": at, "version": Replay.version + 1}
    if after in FINAL:
        changes |= {"finished_at": at, "cleaned_at": None}
    where = (Replay.id == replay.id) & (Replay.run == replay.run) & Replay.state.in_(before)
    moved = bool(session.execute(update(Replay).where(where).values(changes)).rowcount == 1)  # type: ignore[attr-defined]
    if moved:
        session.refresh(replay)
        if after in FINAL:
            events.record(session, replay.stream_id, f"replay.{after}", **_told(replay))
            if after != "cancelled":  # who cancelled it knows
                webhooks.emit_of_replay(session, f"replay.{after}", replay)
    return moved


def _told(replay: Replay) -> dict[str, Any]:
    told: dict[str, Any] = {"replay_id": replay.id, "prefix": replay.prefix}
    if replay.problem_code:
        told["problem"] = {"code": replay.problem_code, "detail": replay.problem_detail}
    return told


def touch(session: Session, replay_id: str, **changes: Any) -> None:
    """Something of the replay changed that is no transition."""
    session.execute(
        update(Replay)
        .where(Replay.id == replay_id)
        .values(changes | {"version": Replay.version + 1, "updated_at": now()})
    )


def unfinished(session: Session) -> list[str]:
    """Ids of the replays somebody still has to work on, oldest first."""
    return list(session.scalars(select(Replay.id).where(Replay.state.in_(ACTIVE)).order_by(Replay.created_at)))


def left_behind(session: Session, moment: datetime) -> Sequence[Replay]:
    """Cancelled and failed ones, since before `moment`, that nobody has cleaned up after."""
    forgotten = Replay.cleaned_at.is_(None) & (Replay.finished_at < moment)
    return session.scalars(select(Replay).where(Replay.state.in_(("cancelled", "failed")), forgotten)).all()


def cleaned(session: Session, replay_id: str, run: int) -> bool:
    """What this run left in the store was seen to; False where it was before, or another run has begun."""
    where = (Replay.id == replay_id) & (Replay.run == run) & Replay.cleaned_at.is_(None)
    seen_to = session.execute(update(Replay).where(where).values(cleaned_at=now()))
    return bool(seen_to.rowcount == 1)  # type: ignore[attr-defined]


def claim_publishing(session: Session, replay: Replay) -> datetime | None:
    """Become the only one who writes this replay's playlists, until `release_publishing`, as long as it is renewed.
    The claim, which `release_publishing` wants back; None where somebody else has it."""
    at = now()
    lapsed = Replay.publishing_since < at - timedelta(seconds=PUBLISHING_LEASE_SECONDS)
    free = or_(Replay.publishing_since.is_(None), lapsed)
    where = (Replay.id == replay.id) & (Replay.run == replay.run) & Replay.state.in_(ACTIVE) & free
    claimed = session.execute(update(Replay).where(where).values(publishing_since=at))
    return at if claimed.rowcount == 1 else None  # type: ignore[attr-defined]


def renew_publishing(session: Session, replay_id: str, claim: datetime) -> datetime | None:
    """The claim that takes the place of this one; None where it had run out and somebody else has it now."""
    at = now()
    where = (Replay.id == replay_id) & (Replay.publishing_since == claim)
    renewed = session.execute(update(Replay).where(where).values(publishing_since=at))
    return at if renewed.rowcount == 1 else None  # type: ignore[attr-defined]


def release_publishing(session: Session, replay_id: str, claim: datetime) -> bool:
    """Give the claim back; False where it had run out and somebody else has it now."""
    where = (Replay.id == replay_id) & (Replay.publishing_since == claim)
    released = session.execute(update(Replay).where(where).values(publishing_since=None))
    return bool(released.rowcount == 1)  # type: ignore[attr-defined]


def revoke_publishing(session: Session, replay_id: str) -> None:
    """Whoever had the claim is known to be gone."""
    session.execute(update(Replay).where(Replay.id == replay_id).values(publishing_since=None))
