"""One chunk of a recording → final CMAF segments of every rung, checked, in the store."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.bus.messages import ChunkJob, ChunkResult, Rung, Track
from control.bus.work import Work
from control.errors import EncoderUnavailable, KeyframesMisplaced, OutputRejected
from control.settings import MediaSettings
from control.storage import ObjectStore
from media_worker.command import chunk_command
from media_worker.encoder_metrics import FALLBACKS
from media_worker.encoders.attempts import Attempts
from media_worker.encoders.devices import gpus
from media_worker.encoders.table import encoder
from media_worker.encoders.tiers import ON_CPU, Kind, Way
from media_worker.ffmpeg import ffmpeg_path
from media_worker.parts import find_part, store_part
from media_worker.runner import run
from media_worker.scratch import scratch
from media_worker.segments import split_video
from media_worker.source import locate

log = logging.getLogger("afterlive.encoders")
_SAY_EVERY_SECONDS: Final = 300.0
_said: float | None = None


def make_chunk(job: ChunkJob, store: ObjectStore, settings: MediaSettings, work: Work) -> ChunkResult:
    """Make the chunk, or find it made.

    Raises EncoderFailed and OutputRejected (trying again may help), EncoderBusy (a while later), EncoderUnavailable
    (another encoder must be planned), Cancelled, DeadlineExceeded, StorageUnavailable.
    """
    found = find_part(store, job.prefix, job.part, ChunkResult)
    if found and _made(found) == _wanted(job):
        return found
    _refuse(job, settings, work)
    try:
        return _make(job, store, settings, work)
    except OutputRejected as error:
        if job.chunk.entry_pts is None or isinstance(error, KeyframesMisplaced):
            raise
        # An index that lies leads past the place it names. Reading from the start is slow, and always right.
        from_start = job.chunk.model_copy(update={"entry_pts": None})
        return _make(job.model_copy(update={"chunk": from_start}), store, settings, work)


def _wanted(job: ChunkJob) -> list[tuple[str, int, str]]:
    """Name, frames and encoder of each rung: what an earlier plan left under the same name does not count."""
    return [(rung.name, -(-job.chunk.frames // rung.frame_step), rung.encoder) for rung in job.rungs]


def _made(result: ChunkResult) -> list[tuple[str, int, str]]:
    encoders = result.encoders or (result.encoder,) * len(result.tracks)
    return [(track.name, track.frames, name) for track, name in zip(result.tracks, encoders, strict=False)]


def _refuse(job: ChunkJob, settings: MediaSettings, work: Work) -> None:
    """Raise EncoderUnavailable where a rung is for an encoder this node may not use, or that does not make its size."""
    for rung in job.rungs:
        row = encoder(rung.encoder)
        if rung.encoder not in settings.encoders:
            raise _unavailable(rung, "it is none of AFTERLIVE_MEDIA_ENCODERS")
        if not row.fits(rung):
            raise _unavailable(rung, f"it makes no pictures of {rung.width} × {rung.height}")
    if any(encoder(rung.encoder).kind != "cpu" for rung in job.rungs):
        return
    name = job.rungs[0].encoder
    if settings.refuse_cpu:
        raise _unavailable(job.rungs[0], "this node refuses to encode on its CPU (AFTERLIVE_MEDIA_REFUSE_CPU)")
    preferred = [row.name for row in map(encoder, settings.encoders) if row.kind != "cpu"]
    if preferred and (devices := gpus(settings)):
        # Nobody would notice otherwise that a dead card makes a node many times slower.
        FALLBACKS.labels(preferred[0], name, "planned").inc()
        _say(f"{work.key} is made by {name} on the CPU of a node with {devices[0].name}")


def _say(line: str) -> None:
    """Not of each chunk: those are counted."""
    global _said
    now = time.monotonic()
    if _said is None or now - _said > _SAY_EVERY_SECONDS:
        _said = now
        log.warning("%s, and so are others", line)


def _unavailable(rung: Rung, reason: str) -> EncoderUnavailable:
    return EncoderUnavailable(encoder=rung.encoder, node=platform.node(), reason=reason)


@dataclass(frozen=True)
class _Passed:
    """What one ffmpeg made."""

    seconds: float
    way: Way
    tracks: tuple[Track, ...]


def _make(job: ChunkJob, store: ObjectStore, settings: MediaSettings, work: Work) -> ChunkResult:
    with scratch(settings) as folder:
        passed: list[_Passed] = []
        fallbacks: list[str] = []
        for part, kind in _passes(job, settings):

            def attempt(way: Way, part: ChunkJob = part) -> _Passed:
                return _encode(part, way, locate(job.source, store), folder, settings, work)

            if kind == "cpu":
                passed.append(attempt(ON_CPU))
            else:
                attempts = Attempts(part, kind, settings, work, attempt)
                passed.append(attempts.make())
                fallbacks += attempts.fallbacks
        tracks = {track.name: track for each in passed for track in each.tracks}
        ways = {track.name: each.way for each in passed for track in each.tracks}
        first = job.rungs[0]
        result = ChunkResult(
            index=job.chunk.index,
            tracks=tuple(tracks[rung.name] for rung in job.rungs),
            encoder=first.encoder,
            encoders=tuple(rung.encoder for rung in job.rungs),
            node=platform.node(),
            device=ways[first.name].device.name,
            tier=ways[first.name].tier.name,
            fallbacks=tuple(fallbacks),
            seconds=round(sum(each.seconds for each in passed), 3),
        )
        store_part(store, job.prefix, job.part, folder / "finished", result, work)
    return result


def _passes(job: ChunkJob, settings: MediaSettings) -> Iterator[tuple[ChunkJob, Kind]]:
    """A command a kind of device, and no more rungs in it than the device has sessions; rungs of the CPU ride along
    with the first."""
    of_kind: dict[Kind, list[Rung]] = {}
    for rung in job.rungs:
        of_kind.setdefault(encoder(rung.encoder).kind, []).append(rung)
    riders = of_kind.pop("cpu", [])
    if not of_kind:
        yield job, "cpu"
    for kind, rungs in of_kind.items():
        for at in range(0, len(rungs), settings.sessions_per_device):
            taken = (*rungs[at : at + settings.sessions_per_device], *riders)
            yield job.model_copy(update={"rungs": taken}), kind
            riders = []


def _encode(job: ChunkJob, way: Way, address: str, folder: Path, settings: MediaSettings, work: Work) -> _Passed:
    """Make the job's rungs in `folder/finished`, one way. What could not be made whole is gone again."""
    encoded, finished = folder / "encoded", folder / "finished"
    encoded.mkdir()
    try:
        command = chunk_command(ffmpeg_path(settings), job, address, encoded, way)
        seconds = run(command, work, total_frames=job.chunk.frames, hang_seconds=_hang_seconds(job, way, settings))
        tracks = []
        for rung in job.rungs:
            work.check()
            path = encoded / f"{rung.name}.mp4"
            tracks.append(split_video(path, rung, job, finished / rung.name))
            path.unlink()
    except BaseException:
        for rung in job.rungs:
            shutil.rmtree(finished / rung.name, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(encoded)
    return _Passed(seconds, way, tuple(tracks))


def _hang_seconds(job: ChunkJob, way: Way, settings: MediaSettings) -> float | None:
    """A chunk in the middle of a recording that is read from its start makes no frame for long, and rightly."""
    reads_on = job.chunk.entry_pts is None and job.chunk.first_frame > 0
    return None if way.device.kind == "cpu" or reads_on else settings.hang_seconds
