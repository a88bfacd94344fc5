"""Replays brought into a state by hand, where a test is about something else than making them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from control.ledger import events, replays
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Replay


def advance(ledger: Ledger, stream_id: str, to: str, *, problem: str | None = None) -> None:
    """The stream's replay becomes `to`: transcoding, playable, completed or failed (with `problem` as its code)."""
    with ledger.write() as session:
        replay = session.scalars(select(Replay).where(Replay.stream_id == stream_id)).one()
        if to == "playable":
            replays.touch(session, replay.id, playable_at=now())
            events.record(session, stream_id, "replay.playable", replay_id=replay.id, prefix=replay.prefix)
            return
        changes: dict[str, Any] = {"playable_at": replay.playable_at or now()} if to == "completed" else {}
        if problem:
            changes |= {"problem_code": problem, "problem_detail": "It was made to fail."}
        assert replays.move(session, replay, replays.ACTIVE, to, **changes)
