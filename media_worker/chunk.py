"""One chunk of a recording → final CMAF segments of every rung, checked, in the store."""

from __future__ import annotations

from control.bus.messages import ChunkJob, ChunkResult
from control.bus.work import Work
from control.errors import OutputRejected
from control.settings import MediaSettings
from control.storage import ObjectStore
from media_worker.command import chunk_command
from media_worker.ffmpeg import ffmpeg_path
from media_worker.parts import find_part, store_part
from media_worker.runner import run
from media_worker.scratch import scratch
from media_worker.segments import split_video
from media_worker.source import locate


def make_chunk(job: ChunkJob, store: ObjectStore, settings: MediaSettings, work: Work) -> ChunkResult:
    """Make the chunk, or find it made.

    Raises EncoderFailed and OutputRejected (trying again may help), Cancelled, DeadlineExceeded, StorageUnavailable.
    """
    found = find_part(store, job.prefix, job.part, ChunkResult)
    if found and [(track.name, track.frames) for track in found.tracks] == _wanted(job):
        return found
    try:
        return _make(job, store, settings, work)
    except OutputRejected:
        if job.chunk.entry_pts is None:
            raise
        # An index that lies leads past the place it names. Reading from the start is slow, and always right.
        from_start = job.chunk.model_copy(update={"entry_pts": None})
        return _make(job.model_copy(update={"chunk": from_start}), store, settings, work)


def _wanted(job: ChunkJob) -> list[tuple[str, int]]:
    """Name and frames of each rung: what an earlier plan left under the same name does not count."""
    return [(rung.name, -(-job.chunk.frames // rung.frame_step)) for rung in job.rungs]


def _make(job: ChunkJob, store: ObjectStore, settings: MediaSettings, work: Work) -> ChunkResult:
    with scratch(settings) as folder:
        encoded, finished = folder / "encoded", folder / "finished"
        encoded.mkdir()
        command = chunk_command(ffmpeg_path(settings), job, locate(job.source, store), encoded)
        seconds = run(command, work, total_frames=job.chunk.frames)
        tracks = []
        for rung in job.rungs:
            work.check()
            path = encoded / f"{rung.name}.mp4"
            tracks.append(split_video(path, rung, job, finished / rung.name))
            path.unlink()
        encoder = job.rungs[0].encoder
        result = ChunkResult(index=job.chunk.index, tracks=tuple(tracks), encoder=encoder, seconds=round(seconds, 3))
        store_part(store, job.prefix, job.part, finished, result, work)
    return result
