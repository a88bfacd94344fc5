"""A part of a replay → the task that makes it, and its payload. Pure."""

from __future__ import annotations

from typing import Any

from control.bus import names
from control.bus.messages import AudioJob, ChunkJob, MediaInfo, Message, Plan, RecordingJob, Rung, ThumbnailJob
from control.bus.names import TaskSpec
from control.ledger.models import Part, Replay


def job_of(replay: Replay, part: Part) -> tuple[TaskSpec, dict[str, Any]]:
    """The catalogue's row and the message's payload for `part`. Raises ValueError for a kind nobody makes."""
    address = {"replay_id": replay.id, "run": replay.run, "part": part.name, "prefix": replay.prefix}
    if part.kind == "recording":
        return names.PROCESS_STREAM_RECORDING, _payload(RecordingJob(**address, source=replay.source))
    info, plan = facts_of(replay)
    # Keyframes serve planning alone; hours of them would weigh down each message.
    video = info.video.model_copy(update={"keyframes": ()})
    address["source"] = info.source
    if part.kind == "chunk":
        job = ChunkJob(
            **address,
            video=video,
            chunk=plan.chunks[part.number],
            rungs=rungs_of(plan, part),
            frame_rate=plan.frame_rate,
            gop_frames=plan.gop_frames,
            segment_frames=plan.segment_frames,
            preset=plan.preset,
            threads=plan.threads,
        )
        return names.TRANSCODE_CHUNK, _payload(job)
    if part.kind == "audio":
        rendition = plan.audio[part.number]
        return names.ENCODE_AUDIO, _payload(
            AudioJob(
                **address,
                rendition=rendition,
                track=next(track for track in info.audio if track.index == rendition.track_index),
                origin_seconds=float(video.origin_pts * video.time_base),
                duration_seconds=plan.duration_seconds,
                segment_seconds=plan.segment_frames / plan.frame_rate,
                normalise_lufs=plan.normalise_lufs,
            )
        )
    if part.kind == "pictures":
        job_seconds = float(plan.duration_seconds)
        return names.GENERATE_STREAM_THUMBNAIL, _payload(
            ThumbnailJob(**address, video=video, duration_seconds=job_seconds)
        )
    raise ValueError(f"no task makes a part of the kind {part.kind!r}")


def rungs_of(plan: Plan, part: Part) -> tuple[Rung, ...]:
    """The rungs of a chunk that are to be made: all, but for what is kept of it since it was planned again."""
    kept = {track["name"] for track in (part.result or {}).get("tracks", ())} if part.state != "done" else set()
    return tuple(rung for rung in plan.rungs if rung.name not in kept)


def facts_of(replay: Replay) -> tuple[MediaInfo, Plan]:
    """What the recording is and how its replay is made. Raises pydantic.ValidationError before it is planned."""
    return MediaInfo.model_validate(replay.info), Plan.model_validate(replay.plan)


def _payload(job: Message) -> dict[str, Any]:
    return {"job": job.model_dump(mode="json")}
