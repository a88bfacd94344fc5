"""What is still to be done of replays, as gauges: what autoscaling and its alerts go by.

A queue tells how many messages it holds, and nothing once all its workers are gone; the ledger knows how long each part
is waiting, whoever has it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import case, func, select

from control import telemetry
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Part, Replay
from control.ledger.replays import ACTIVE

KINDS: Final = ("recording", "chunk", "audio", "pictures")
STATES: Final = ("pending", "waiting", "running")
"""Not on the bus yet, as the replay's window is full; on the bus; begun, by what its worker said."""
# A part on the bus that nothing was heard of is at the moment it was sent, and so is its heartbeat.
_BEGUN = (Part.heartbeat_at > Part.sent_at) | (Part.done_frames > 0)
_STATE = case((Part.state == "pending", "pending"), (_BEGUN, "running"), else_="waiting")
_UNDER_WAY = (
    select(Part.kind, _STATE.label("now"), Part.sent_at, (Part.total_frames - Part.done_frames).label("frames"))
    .join(Replay, Replay.id == Part.replay_id)
    .where(Part.state.in_(("pending", "sent")), Replay.state.in_(ACTIVE))
    .subquery()
)
_SUMS = select(
    _UNDER_WAY.c.kind,
    _UNDER_WAY.c.now,
    func.count(),
    func.min(_UNDER_WAY.c.sent_at),
    func.sum(_UNDER_WAY.c.frames),
).group_by(_UNDER_WAY.c.kind, _UNDER_WAY.c.now)


def look(ledger: Ledger) -> None:
    """Bring the gauges up to date."""
    with ledger.read() as session:
        rows = session.execute(_SUMS).all()
    at = now()
    counts = {(kind, state): (count, since, frames) for kind, state, count, since, frames in rows}
    for kind in KINDS:
        for state in STATES:
            telemetry.PARTS.labels(kind, state).set(counts.get((kind, state), (0, None, 0))[0])
        since = counts.get((kind, "waiting"), (0, None, 0))[1]
        telemetry.PARTS_AGE.labels(kind).set((at - since).total_seconds() if since else 0.0)
    telemetry.BACKLOG_FRAMES.set(sum(int(frames or 0) for _, _, frames in counts.values()))
