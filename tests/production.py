"""A recording taken through the media tier by hand, without bus or ledger: examined, planned, chunks and sound made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from control.bus.messages import AudioJob, AudioResult, ChunkJob, ChunkResult, MediaInfo, Message, Plan, RecordingJob
from control.bus.work import Work
from control.settings import MediaSettings, Settings, StorageSettings, use
from control.storage import LocalStore
from media_worker.chunk import make_chunk
from media_worker.recording import examine
from media_worker.tasks import encode_audio
from pipelines.ladder import Step
from pipelines.plan import make_plan

M = TypeVar("M", bound=Message)

PREFIX = "replays/r/"
LADDER = (Step(short_side=180, kbps=600), Step(short_side=90, kbps=200, max_fps=30))


def media_settings(folder: Path, recordings: Path, **changes: Any) -> MediaSettings:
    """Settings of a worker that reads `recordings` and works in `folder`."""
    facts: dict[str, Any] = {
        "recording_roots": [recordings],
        "scratch": folder / "scratch",
        "preset": "ultrafast",
        "concurrency": 2,
    }
    return MediaSettings(_env_file=None, **(facts | changes))


def look_at(source: Path | str, folder: Path, settings: MediaSettings, work: Work | None = None) -> MediaInfo:
    """What `media.process_stream_recording` answers."""
    if isinstance(source, Path) and source.is_file():
        os.utime(source, (0, 0))  # an old file: nobody is waited for who may still write to it
    job = RecordingJob(replay_id="r", source=str(source), prefix=PREFIX)
    return examine(job, LocalStore(folder / "store", durable=False), settings, work or Work("recording", 60))


@dataclass
class Production:
    """One recording, and what has been made of it in `folder`."""

    source: Path
    folder: Path
    settings: MediaSettings
    ladder: Sequence[Step] = LADDER
    store: LocalStore = field(init=False)
    info: MediaInfo = field(init=False)
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "store", durable=False)
        self.info = look_at(self.source, self.folder, self.settings)
        self.plan = make_plan(self.info, self.settings, self.ladder)

    @property
    def made(self) -> Path:
        return self.folder / "store" / PREFIX

    def chunk_job(self, index: int, **changes: Any) -> ChunkJob:
        plan = self.plan
        job = ChunkJob(
            replay_id="r", part=f"chunk-{index:05d}", source=self.info.source, prefix=PREFIX,
            video=self.info.video.model_copy(update={"keyframes": ()}), chunk=plan.chunks[index], rungs=plan.rungs,
            frame_rate=plan.frame_rate, gop_frames=plan.gop_frames, segment_frames=plan.segment_frames,
            preset=plan.preset, threads=plan.threads,
        )  # fmt: skip
        return _over_the_wire(job.model_copy(update=changes))

    def audio_job(self, number: int = 0, **changes: Any) -> AudioJob:
        plan, video = self.plan, self.info.video
        rendition = plan.audio[number]
        job = AudioJob(
            replay_id="r", part=rendition.name, source=self.info.source, prefix=PREFIX, rendition=rendition,
            track=next(track for track in self.info.audio if track.index == rendition.track_index),
            origin_seconds=float(video.origin_pts * video.time_base), duration_seconds=plan.duration_seconds,
            segment_seconds=plan.segment_frames / plan.frame_rate, normalise_lufs=plan.normalise_lufs,
        )  # fmt: skip
        return _over_the_wire(job.model_copy(update=changes))

    def make_chunk(self, index: int, work: Work | None = None) -> ChunkResult:
        return make_chunk(self.chunk_job(index), self.store, self.settings, work or Work(f"chunk-{index}", 60))

    def make_chunks(self, order: Iterable[int] | None = None) -> list[ChunkResult]:
        """All of them, two at a time, begun in `order` of their indexes; the results in the plan's order."""
        indexes = list(range(len(self.plan.chunks))) if order is None else list(order)
        with ThreadPoolExecutor(2) as pool:
            results = dict(zip(indexes, pool.map(self.make_chunk, indexes), strict=True))
        return [results[index] for index in sorted(results)]

    def make_audio(self, number: int = 0) -> AudioResult:
        use(Settings(_env_file=None, media=self.settings, storage=StorageSettings(url=f"file:{self.folder / 'store'}")))
        result: AudioResult = encode_audio.body(self.audio_job(number), Work("audio", 60))
        return result

    def whole(self, rendition: str) -> Path:
        """Init and segments of a rendition in one file, as a player has them in its buffer."""
        path = self.folder / f"{rendition}.mp4"
        parts = [self.made / rendition / "init.mp4", *sorted((self.made / rendition).glob("*.m4s"))]
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    def files(self) -> dict[str, bytes]:
        """Every init and media segment in the store, by its key below the prefix."""
        return {str(path.relative_to(self.made)): path.read_bytes() for path in sorted(self.made.glob("[!.]*/*"))}


def _over_the_wire(job: M) -> M:
    return type(job).model_validate_json(job.model_dump_json())


def decode_video(path: Path) -> tuple[list[NDArray[np.uint8]], list[Fraction]]:
    """Grey pictures (height × width) and presentation times in seconds, in the order they are shown."""
    pictures: list[NDArray[np.uint8]] = []
    times = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            pictures.append(frame.to_ndarray(format="gray").astype(np.uint8))
            times.append(frame.pts * Fraction(frame.time_base or 1))
    return pictures, times


def decode_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Channels × samples as a player hears them, sample 0 at time 0 of the replay; and the sample rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        pieces, end = [], None
        for frame in container.decode(stream):
            assert frame.pts is not None
            time = round(frame.pts * Fraction(frame.time_base or 1) * rate)
            assert end is None or time == end, f"sound of {time} where {end} was due"
            end = time + frame.samples
            data = frame.to_ndarray().astype(np.float32)
            pieces.append(data[:, max(0, -time) :] if time < 0 else data)
    return np.concatenate(pieces, axis=1), rate
