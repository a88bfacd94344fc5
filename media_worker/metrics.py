"""What transcoding is measured by: frames, speed and results, by rung, encoder and node; and the room it has to work.

All rungs of a chunk come out of one ffmpeg, so the seconds of a rung are those of the chunks it was part of: speeds of
rungs side by side do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from control import telemetry
from control.bus.messages import ChunkJob, ChunkResult
from control.settings import MediaSettings
from media_worker.gpu_metrics import watch_gpus
from media_worker.scratch import disk_bytes, used_bytes

_NO_FAULT: Final = {"cancelled": "cancelled", "encoder-busy": "busy", "encoder-unavailable": "unavailable"}
_RUNG: Final = ["rung", "encoder", "node"]
FRAMES: Final = Counter("afterlive_transcoded_frames_total", "Frames encoded", _RUNG)
MEDIA_SECONDS: Final = Counter("afterlive_transcoded_seconds_total", "Seconds of replay encoded", _RUNG)
BUSY_SECONDS: Final = Counter(
    "afterlive_transcode_busy_seconds_total", "Seconds encoders ran for chunks this rung was part of", _RUNG
)
FPS: Final = Histogram(
    "afterlive_transcode_fps",
    "Frames a second a rung was encoded at, by chunk",
    _RUNG,
    buckets=(1, 5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 480, 960, 1920),
)
REALTIME: Final = Histogram(
    "afterlive_transcode_realtime_ratio",
    "Seconds of replay encoded in a second, by chunk",
    _RUNG,
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 40),
)
OUTPUT_BYTES: Final = Counter("afterlive_transcoded_bytes_total", "Bytes of finished segments", _RUNG)
CHUNKS: Final = Counter(
    "afterlive_chunks_total",
    "Tries at chunks by how they ended: done, reused (found in the store), cancelled, busy (waits for a free session), "
    "unavailable (goes to another encoder) or failed",
    ["result", "encoder", "node"],
)
RUNNING: Final = Gauge("afterlive_chunks_running", "Chunks that are made now", ["encoder", "node"])
SCRATCH_USED: Final = Gauge(
    "afterlive_scratch_used_bytes", "Work in progress of all workers that share this one's scratch folder", ["node"]
)
SCRATCH_FREE: Final = Gauge("afterlive_scratch_free_bytes", "Room left on the scratch folder's disk", ["node"])
SCRATCH_SIZE: Final = Gauge("afterlive_scratch_size_bytes", "Size of the scratch folder's disk", ["node"])


@contextmanager
def counted(job: ChunkJob) -> Iterator[None]:
    """Around a try at a chunk: it counts as running, and where it does not come to its end, by why."""
    encoder, node = job.rungs[0].encoder, telemetry.node()
    RUNNING.labels(encoder, node).inc()
    try:
        yield
    except BaseException as error:
        CHUNKS.labels(_NO_FAULT.get(getattr(error, "code", ""), "failed"), encoder, node).inc()
        raise
    finally:
        RUNNING.labels(encoder, node).dec()


def measure(job: ChunkJob, result: ChunkResult) -> None:
    """What came of a chunk. One that was found in the store was measured where it was made."""
    node = telemetry.node()
    CHUNKS.labels("reused" if result.reused else "done", result.encoder, node).inc()
    if result.reused or result.seconds <= 0:
        return
    rungs = {rung.name: rung for rung in job.rungs}
    for track in result.tracks:
        rung = rungs[track.name]
        media_seconds = track.frames / float(rung.frame_rate)
        labels = (track.name, rung.encoder, node)
        FRAMES.labels(*labels).inc(track.frames)
        MEDIA_SECONDS.labels(*labels).inc(media_seconds)
        BUSY_SECONDS.labels(*labels).inc(result.seconds)
        OUTPUT_BYTES.labels(*labels).inc(sum(segment.size_bytes for segment in track.segments))
        FPS.labels(*labels).observe(track.frames / result.seconds)
        REALTIME.labels(*labels).observe(media_seconds / result.seconds)


_watched: Final[list[object]] = []


def watch(settings: MediaSettings) -> None:
    """Have this machine measured at each scrape, whatever number of workers is started in the process."""
    watch_scratch(settings)
    if not _watched:
        _watched.append(watch_gpus())


def watch_scratch(settings: MediaSettings) -> None:
    """Have the scratch folder measured at each scrape."""
    node = telemetry.node()
    SCRATCH_USED.labels(node).set_function(lambda: used_bytes(settings))
    SCRATCH_FREE.labels(node).set_function(lambda: disk_bytes(settings)[0])
    SCRATCH_SIZE.labels(node).set_function(lambda: disk_bytes(settings)[1])
