"""Stream ended → recording examined → chunks, audio and pictures → playlists. What happens after what, for replays.

Each function is one step in one transaction: what it decides and the messages that follow from it are committed
together. Any step may come twice, or late; the ledger's compare-and-set decides whether it still counts.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.bus.messages import ChunkResult, MediaInfo, PartProblem, Plan, Problem
from control.errors import AfterliveError, OutputRejected
from control.ledger import events, nodes, outbox, parts, replays
from control.ledger.base import now
from control.ledger.models import Part, Replay
from control.settings import MediaSettings
from pipelines import replan
from pipelines.jobs import facts_of, job_of, rungs_of
from pipelines.pinning import pin
from pipelines.plan import make_plan

log = logging.getLogger("afterlive.pipelines")
_NO_PICTURES: Final = "pictures-failed"


def start(session: Session, replay_id: str, run: int, settings: MediaSettings) -> None:
    """A replay waits: have its recording examined, or, where that was done in an earlier run, go on from there."""
    replay = replays.lock(session, replay_id)
    if replay.run != run or replay.state != "waiting":
        return
    known = {part.name: part for part in parts.of_replay(session, replay_id, kind="recording")}
    recording = known.get("recording") or parts.add(session, replay_id, "recording", 0)
    session.flush()
    if recording.state == "done" and replay.plan:
        replays.move(session, replay, ("waiting",), "transcoding")
        send_next(session, replay, settings)
        outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": replay_id, "run": run})
        return
    replays.move(session, replay, ("waiting",), "probing", started_at=now())
    _send(session, replay, recording)


def part_done(
    session: Session, replay_id: str, run: int, name: str, result: dict[str, Any], settings: MediaSettings
) -> None:
    """A worker's answer. An answer that came before, or of a run that is over, changes nothing."""
    replay = replays.lock(session, replay_id)
    if replay.run != run or replay.state not in replays.ACTIVE:
        _clean_up_after(session, replay, run)
        return
    if name == names.PROBED:
        if replay.state == "probing":
            _begin(session, replay, result, settings)
        return
    if name == "recording":
        if replay.state == "probing":
            _plan(session, replay, result, settings)
        return
    if name.startswith("chunk-"):
        whole = _whole(session, replay, name, result)
        if whole is None:
            log.info("replay=%s part=%s was made by an earlier plan", replay_id, name)
            return
        if other := _other_inits(session, replay, whole):
            if replan.mixed(session, replay, other, settings):
                send_next(session, replay, settings)
                return
            reason = "its init segment is not that of the other chunks"
            problem = Problem.of(OutputRejected(key=f"{replay.id} {', '.join(other)}", reason=reason))
            part_failed(session, replay_id, run, name, problem, settings)
            return
        result = whole
    if parts.mark_done(session, replay_id, name, result):
        if name == "pictures" and replay.notes:  # there are some after all: late, or in a later run
            replays.touch(session, replay_id, notes=[note for note in replay.notes if note["code"] != _NO_PICTURES])
        send_next(session, replay, settings)
        outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": replay_id, "run": run})


def part_failed(
    session: Session, replay_id: str, run: int, name: str, problem: Problem, settings: MediaSettings
) -> None:
    """A part failed finally. Without pictures a replay is still a replay; without a chunk or its sound it is not; but
    for a chunk whose encoder could not be had there is another one."""
    replay = replays.lock(session, replay_id)
    if replay.run != run or replay.state not in replays.ACTIVE:
        _clean_up_after(session, replay, run)
        return
    if name == "pictures":
        if parts.move(session, replay_id, name, ("pending", "sent"), "failed"):
            note = {"code": _NO_PICTURES, "detail": f"no thumbnails, no storyboard: {problem.detail}"}
            replays.touch(session, replay_id, notes=[*(replay.notes or []), note])
            outbox.add(session, names.PUBLISH_REPLAY, {"replay_id": replay_id, "run": run})
        return
    if name.startswith("chunk-") and _goes_on(session, replay, name, problem, settings):
        send_next(session, replay, settings)
        return
    if parts.move(session, replay_id, name, ("pending", "sent"), "failed"):
        give_up(session, replay_id, run, problem)


def _goes_on(session: Session, replay: Replay, name: str, problem: Problem, settings: MediaSettings) -> bool:
    """Whether a chunk that failed is no reason to give the replay up."""
    part = session.get(Part, (replay.id, name), populate_existing=True)
    if part is None or replay.plan is None:
        return False
    if isinstance(problem, PartProblem):
        if replan.is_stale(replay, part, problem):
            log.info("replay=%s part=%s of an earlier plan failed: %s", replay.id, name, problem.detail)
            return True
        if problem.encoder:
            return replan.refused(session, replay, part, problem, settings)
    return replan.failed(session, replay, part, problem, settings)


def encoder_lost(session: Session, replay_id: str, run: int, encoder: str, settings: MediaSettings) -> None:
    """Nobody seems to have an encoder any more that chunks wait for."""
    replay = replays.lock(session, replay_id)
    if replay.run == run and replan.lost(session, replay, encoder, settings):
        send_next(session, replay, settings)


def give_up(session: Session, replay_id: str, run: int, problem: Problem) -> None:
    """The replay failed, for `problem`."""
    replay = replays.lock(session, replay_id)
    if replay.run != run:
        return
    changes = {"problem_code": problem.code, "problem_detail": problem.detail}
    if replays.move(session, replay, replays.ACTIVE, "failed", **changes):
        parts.stop_all(session, replay_id, "cancelled")
        telemetry.REPLAYS.labels("failed").inc()
        clean_up(session, replay)


def _clean_up_after(session: Session, replay: Replay, run: int) -> None:
    """A worker was still at it when the replay ended, and may have left files behind."""
    if run == replay.run and replay.state in ("cancelled", "completed"):
        clean_up(session, replay)


def clean_up(session: Session, replay: Replay) -> None:
    """Have what is left behind by a replay that is over seen to (`pipelines.workflows`)."""
    facts = {"replay_id": replay.id, "run": replay.run, "prefix": replay.prefix}
    outbox.add(session, names.HANDLE_FACT, {"fact": f"replay.{replay.state}", "facts": facts})


def send_next(session: Session, replay: Replay, settings: MediaSettings) -> None:
    """Fill the replay's window: sound and pictures first, then chunks in order, so many on the bus at a time."""
    for kind in ("audio", "pictures"):
        for part in parts.next_pending(session, replay.id, kind, limit=100):
            _send(session, replay, part)
    room = settings.chunks_in_flight - parts.count(session, replay.id, "sent", kind="chunk")
    for part in parts.next_pending(session, replay.id, "chunk", limit=max(room, 0)):
        _send(session, replay, part)


def _begin(session: Session, replay: Replay, result: dict[str, Any], settings: MediaSettings) -> None:
    """The recording is known, but not yet how many bits it needs: sound and pictures need not wait for that."""
    if (made := _facts(session, replay, result, settings)) is None:
        return
    info, plan = made
    replays.touch(session, replay.id, info=info.model_dump(mode="json"), plan=plan.model_dump(mode="json"))
    session.refresh(replay, ("info", "plan", "version"))
    _add_parts(session, replay, plan)
    send_next(session, replay, settings)


def _facts(
    session: Session, replay: Replay, result: dict[str, Any], settings: MediaSettings
) -> tuple[MediaInfo, Plan] | None:
    """What the recording is, and the plan; None where there can be none, and the replay has failed."""
    try:
        info = MediaInfo.model_validate(result)
        there = nodes.alive(session, settings.node_lost_seconds)
        return info, pin(make_plan(info, settings), info.video.bit_depth, there)
    except Exception as error:
        log.warning("replay=%s cannot be planned", replay.id, exc_info=not isinstance(error, AfterliveError))
        part_failed(session, replay.id, replay.run, "recording", Problem.of(error), settings)
        return None


def _add_parts(session: Session, replay: Replay, plan: Plan) -> None:
    """Those that do not depend on what the content needs; some may be there."""
    known = {part.name for part in parts.of_replay(session, replay.id)}
    for kind, count in (("audio", len(plan.audio)), ("pictures", 1)):
        for number in range(count):
            if parts.name(kind, number) not in known:
                parts.add(session, replay.id, kind, number)
    session.flush()


def _plan(session: Session, replay: Replay, result: dict[str, Any], settings: MediaSettings) -> None:
    if (made := _facts(session, replay, result, settings)) is None:
        return
    info, plan = made
    if not parts.mark_done(session, replay.id, "recording", result):
        return
    _add_parts(session, replay, plan)
    for chunk in plan.chunks:
        parts.add(session, replay.id, "chunk", chunk.index, total_frames=chunk.frames)
    without_pictures = [note for note in replay.notes or () if note["code"] == _NO_PICTURES]
    changes = {
        "info": info.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
        "notes": [*(note.model_dump() for note in info.notes), *without_pictures],
        "frames_total": plan.frames,
        "planned_at": now(),
    }
    if not replays.move(session, replay, ("probing",), "transcoding", **changes):
        return
    facts = {
        "frames": plan.frames,
        "chunks": len(plan.chunks),
        "rungs": [rung.name for rung in plan.rungs],
        "encoders": [rung.encoder for rung in plan.rungs],
    }
    events.record(session, replay.stream_id, "replay.planned", replay_id=replay.id, **facts)
    session.flush()
    send_next(session, replay, settings)


def _send(session: Session, replay: Replay, part: Part) -> None:
    spec, payload = job_of(replay, part)
    if parts.mark_sent(session, part):
        outbox.add(session, spec, payload)


def _whole(session: Session, replay: Replay, name: str, result: dict[str, Any]) -> dict[str, Any] | None:
    """A chunk's answer, with what was kept of an earlier plan; None where it answers an earlier plan itself."""
    part = session.get(Part, (replay.id, name), populate_existing=True)
    if part is None or part.state == "done":
        return result
    _, plan = facts_of(replay)
    made = {track["name"]: track for track in result["tracks"]}
    if set(made) != {rung.name for rung in rungs_of(plan, part)}:
        return None
    kept = {track["name"]: track for track in (part.result or {}).get("tracks", ())}
    tracks = [(made | kept)[rung.name] for rung in plan.rungs]
    return {**result, "tracks": tracks, "encoders": [rung.encoder for rung in plan.rungs]}


def _other_inits(session: Session, replay: Replay, result: dict[str, Any]) -> list[str]:
    """All chunks of a rung share one init segment; the first that is done says which. The rungs of this one that have
    another."""
    made = {track.name: track.init_sha256 for track in ChunkResult.model_validate(result).tracks}
    known = replay.inits or {}
    other = [name for name, sha256 in made.items() if known.get(name, sha256) != sha256]
    if not other and (new := {name: sha256 for name, sha256 in made.items() if name not in known}):
        replays.touch(session, replay.id, inits=known | new)
    return other
