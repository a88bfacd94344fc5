"""A rung whose encoder cannot be had any more gets another one, and is made again from its start.

Its init segment is another's then, so none of its chunks is of use; those of the other rungs are. What was made lies
in its old folder, where players that have the old playlists find it, until the replay is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.bus.messages import NodeReport, PartProblem, Plan, Problem
from control.bus.routing import CPU, family_of
from control.errors import AfterliveError, DeadlineExceeded, EncoderBusy, EncoderFailed, OutputRejected
from control.ledger import events, nodes, outbox, parts, replays
from control.ledger.base import now
from control.ledger.models import Part, Replay
from control.settings import MediaSettings
from pipelines.jobs import facts_of, job_of, rungs_of
from pipelines.pinning import can, repin

log = logging.getLogger("afterlive.pipelines")
LOST: Final = "replay.encoder_lost"
"""The fact that nobody seems to have an encoder any more."""
# Another node may have what this one has not; but not for ever, where each only says so. What any processor can do is
# worth waiting for: a node that was told to refuse it took it by chance.
_MOST_REFUSALS: Final = 3
_AGAIN_SECONDS: Final = 5.0
_MOST_AGAIN_SECONDS: Final = 60.0
# Of a chunk that a device made: it, or its driver, may be the reason.
_FAULTS: Final = frozenset(
    {
        *(error.code for error in (EncoderFailed, OutputRejected, EncoderBusy, DeadlineExceeded, AfterliveError)),
        "poison",
    }
)
_REPORTS: Final = 2
"""So many reports must have had the time to come."""


def refused(session: Session, replay: Replay, part: Part, problem: PartProblem, settings: MediaSettings) -> bool:
    """A worker could not have the encoder of a chunk: another worker tries, or the rung gets another encoder. False
    where neither can help, and the chunk has failed."""
    _, plan = facts_of(replay)
    pinned = dict.fromkeys(rung.encoder for rung in plan.rungs)
    if (encoder := problem.encoder) is None or encoder not in pinned or part.state != "sent":
        # Of an earlier plan, or told twice: what the plan is now is on its way already.
        return encoder is not None
    if problem.node:
        nodes.cannot(session, problem.node, encoder, problem.detail)
    session.flush()
    others = [node for node in nodes.alive(session, settings.node_lost_seconds) if node.node != problem.node]
    on_cpu = family_of(encoder) == CPU
    device = next((other for other in pinned if family_of(other) != CPU), None)
    if on_cpu and device is not None:
        # Who has the device has not what goes with it: then all goes to those who have that.
        _replan(session, replay, plan, device, "unavailable", settings)
        return True
    if _has(others, replay, plan, encoder) and (on_cpu or part.refused < _MOST_REFUSALS):
        log.warning("replay=%s part=%s is for another node: %s", replay.id, part.name, problem.detail)
        if parts.refuse(session, part):
            delay = min(_AGAIN_SECONDS * part.refused, _MOST_AGAIN_SECONDS)
            outbox.add(session, *job_of(replay, part), delay_seconds=delay)
        return True
    if on_cpu:
        return False  # there is nothing below it
    _replan(session, replay, plan, encoder, "unavailable", settings)
    return True


def failed(session: Session, replay: Replay, part: Part, problem: Problem, settings: MediaSettings) -> bool:
    """A chunk failed finally. Where a device was to make it and the device may be to blame, another encoder makes its
    rungs: what is really wrong with the recording, that one finds too. False where no device was."""
    if problem.code not in _FAULTS or part.state != "sent":
        return False
    _, plan = facts_of(replay)
    encoders = [rung.encoder for rung in rungs_of(plan, part) if family_of(rung.encoder) != CPU]
    for encoder in dict.fromkeys(encoders):
        _, plan = facts_of(replay)
        _replan(session, replay, plan, encoder, "failed", settings)
    return bool(encoders)


def is_stale(replay: Replay, part: Part, problem: PartProblem) -> bool:
    """Whether it is of a chunk of an earlier plan."""
    _, plan = facts_of(replay)
    return bool(problem.rungs) and set(problem.rungs) != {rung.name for rung in rungs_of(plan, part)}


def mixed(session: Session, replay: Replay, rungs: Collection[str], settings: MediaSettings) -> bool:
    """Chunks of these rungs came out with different init segments: devices of one family that are not alike, which
    every encoder that needs none is. False where there is no such device to do without."""
    _, plan = facts_of(replay)
    encoders = [rung.encoder for rung in plan.rungs if rung.name in rungs and family_of(rung.encoder) != CPU]
    for encoder in dict.fromkeys(encoders):
        _, plan = facts_of(replay)
        _replan(session, replay, plan, encoder, "mixed", settings)
    return bool(encoders)


def suspect(session: Session, replay: Replay, settings: MediaSettings) -> None:
    """Where chunks wait for an encoder that nobody has had for long, look once more a little later, and then have them
    planned again: after an outage of the bus everybody seems to be gone, until the first reports have come."""
    for encoder in _lost(session, replay, settings):
        facts = {"replay_id": replay.id, "run": replay.run, "encoder": encoder}
        delay = _REPORTS * settings.report_seconds
        outbox.add(session, names.HANDLE_FACT, {"fact": LOST, "facts": facts}, delay_seconds=delay)


def lost(session: Session, replay: Replay, encoder: str, settings: MediaSettings) -> bool:
    """The rungs of `encoder` get another one, if it is lost still."""
    if encoder not in _lost(session, replay, settings):
        return False
    _, plan = facts_of(replay)
    _replan(session, replay, plan, encoder, "lost", settings)
    return True


def _lost(session: Session, replay: Replay, settings: MediaSettings) -> list[str]:
    """Encoders of devices that chunks of the replay wait for and no node has had for `node_lost_seconds`."""
    if replay.state != "transcoding" or not parts.count(session, replay.id, "pending", "sent", kind="chunk"):
        return []
    _, plan = facts_of(replay)
    wanted = dict.fromkeys(rung.encoder for rung in plan.rungs if family_of(rung.encoder) != CPU)
    since = now() - timedelta(seconds=settings.node_lost_seconds)
    there = nodes.alive(session, settings.node_lost_seconds) if wanted else []
    found = []
    for encoder in wanted:
        if _has(there, replay, plan, encoder):
            continue
        last = nodes.last_usable(session, encoder)
        if last is None or last < since:
            found.append(encoder)
    return found


def _has(there: list[NodeReport], replay: Replay, plan: Plan, encoder: str) -> bool:
    """Whether one of these nodes can make all rungs of `encoder`."""
    info, _ = facts_of(replay)
    rungs = [rung for rung in plan.rungs if rung.encoder == encoder]
    return any(all(can(node, encoder, rung, info.video.bit_depth) for rung in rungs) for node in there)


def _replan(session: Session, replay: Replay, plan: Plan, encoder: str, reason: str, settings: MediaSettings) -> None:
    info, _ = facts_of(replay)
    changed = repin(plan, encoder, info.video.bit_depth, nodes.alive(session, settings.node_lost_seconds))
    kept = {rung.name for rung in changed.rungs if rung in plan.rungs}
    again = parts.make_again(session, replay.id, kept)
    inits = {name: sha256 for name, sha256 in (replay.inits or {}).items() if name in kept}
    replays.touch(session, replay.id, plan=changed.model_dump(mode="json"), inits=inits or None)
    session.refresh(replay, ("plan", "inits", "version"))
    moved = [rung for rung in changed.rungs if rung.name not in kept]
    for rung in moved:
        telemetry.REPINNED.labels(encoder, rung.encoder, reason).inc()
    to = sorted({rung.encoder for rung in moved})
    rungs = [rung.name for rung in plan.rungs if rung.encoder == encoder]
    facts: dict[str, Any] = {"rungs": rungs, "encoder": encoder, "to": to, "reason": reason, "chunks_again": again}
    log.warning("replay=%s planned again: %s", replay.id, " ".join(f"{name}={value}" for name, value in facts.items()))
    events.record(session, replay.stream_id, "replay.replanned", replay_id=replay.id, **facts)
