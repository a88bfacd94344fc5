"""A media tier that needs no ffmpeg: the same jobs, the same answers, the same files and manifests, but tiny ones.

What a test wants to happen (a slow chunk, one that fails, one that does not fit) it says to the `Studio`.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from control.bus import names
from control.bus.messages import (
    AudioJob,
    AudioResult,
    ChunkJob,
    ChunkResult,
    Complexity,
    IFrame,
    MediaInfo,
    RecordingJob,
    Segment,
    Thumbnail,
    ThumbnailJob,
    ThumbnailResult,
    Track,
)
from control.bus.work import Work
from control.errors import EncoderUnavailable
from control.settings import current
from control.storage import ObjectStore, open_store
from media_worker.parts import find_part, store_part
from tests.bus import Body
from tests.unit import facts

_AUDIO_TIMESCALE = 48000


class Studio:
    """The fake tier, and what it did. Parts are named `{replay_id}/{part}`."""

    def __init__(self, seconds: float = 60) -> None:
        self.seconds = seconds
        """Length of every recording, unless its name says otherwise (`90s.mp4`)."""
        self.chunk_seconds = 0.0
        """How long a chunk takes to make."""
        self.errors: dict[str, Exception] = {}
        """Part (`chunk-00003`) → what is raised instead of making it."""
        self.inits: dict[str, bytes] = {}
        """Part → its init segment, where it is not that of the others."""
        self.lacks: set[str] = set()
        """Encoders that cannot be had (any more)."""
        self.fails_on: dict[str, Exception] = {}
        """Encoder → what is raised where a chunk is to be made with it, finally."""
        self.held: set[str] = set()
        """Parts that are not finished before `release`."""
        self.tells = True
        """Of what a recording is, as soon as that is known."""
        self.complexity: Complexity | None = None
        self.size_bytes = 1
        self.made: list[str] = []
        """In the order they were finished; those found made are not among them."""
        self._gate = threading.Event()
        self._lock = threading.Lock()
        self._running = 0

    def release(self) -> None:
        self.held = set()
        self._gate.set()

    def bodies(self) -> list[Body]:
        return [
            (names.PROCESS_STREAM_RECORDING, self.recording),
            (names.TRANSCODE_CHUNK, self.chunk),
            (names.ENCODE_AUDIO, self.audio),
            (names.GENERATE_STREAM_THUMBNAIL, self.pictures),
        ]

    def recording(self, job: RecordingJob, work: Work) -> MediaInfo:
        stem = Path(job.source).stem
        seconds = float(stem.removesuffix("s")) if stem.endswith("s") and stem[:-1].isdigit() else self.seconds
        track = facts.video(640, 360, seconds=seconds)
        found = facts.info(track, facts.audio(end_seconds=seconds))
        found = found.model_copy(update={"source": job.source, "size_bytes": self.size_bytes})
        if self.tells and job.part not in self.errors:
            work.tell(names.PROBED, found)
        with self._making(job, work):
            return found.model_copy(update={"complexity": self.complexity})

    def chunk(self, job: ChunkJob, work: Work) -> ChunkResult:
        store = _store()
        found = find_part(store, job.prefix, job.part, ChunkResult)
        if found and [track.name for track in found.tracks] == [rung.name for rung in job.rungs]:
            return found
        with self._making(job, work, self.chunk_seconds) as folder:
            for rung in job.rungs:
                if error := self.fails_on.get(rung.encoder):
                    raise error
                if rung.encoder in self.lacks:
                    raise EncoderUnavailable(encoder=rung.encoder, node="fake", reason="its driver is gone")
            # As with the real ones, each encoder has an init segment of its own.
            inits = [self.inits.get(job.part, f"init of {rung.encoder}".encode()) for rung in job.rungs]
            tracks = tuple(_video(job, number, folder, init) for number, init in enumerate(inits))
            result = ChunkResult(index=job.chunk.index, tracks=tracks, encoder=job.rungs[0].encoder, seconds=0.1)
            store_part(store, job.prefix, job.part, folder, result, work)
        return result

    def audio(self, job: AudioJob, work: Work) -> AudioResult:
        store = _store()
        if found := find_part(store, job.prefix, job.part, AudioResult):
            return found
        with self._making(job, work) as folder:
            track = _audio(job, folder)
            result = AudioResult(track=track, mode=job.rendition.mode, seconds=0.1)
            store_part(store, job.prefix, job.part, folder, result, work)
        return result

    def pictures(self, job: ThumbnailJob, work: Work) -> ThumbnailResult:
        with self._making(job, work) as folder:
            for name in ("poster.jpg", "storyboard.vtt", "storyboard/001.jpg"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(b"picture")
            poster = Thumbnail(name="poster.jpg", seconds=1, score=1, width=64, height=36)
            result = ThumbnailResult(
                poster=poster,
                candidates=(),
                storyboard="storyboard.vtt",
                sheets=("storyboard/001.jpg",),
                tiles=1,
                seconds=0.1,
            )
            store_part(_store(), job.prefix, job.part, folder, result, work)
        return result

    @contextmanager
    def _making(self, job: Any, work: Work, seconds: float = 0.0) -> Iterator[Path]:
        with self._lock:
            self._running += 1
        try:
            deadline = time.monotonic() + (0 if job.part in self.errors else seconds)
            while time.monotonic() < deadline or job.part in self.held:
                work.check()
                self._gate.wait(0.005)
            if error := self.errors.get(job.part):
                raise error
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder)
            self.made.append(f"{job.replay_id}/{job.part}")
        finally:
            with self._lock:
                self._running -= 1


def _store() -> ObjectStore:
    return open_store(current().storage)


def _video(job: ChunkJob, number: int, folder: Path, init: bytes) -> Track:
    rung = job.rungs[number]
    tick = Fraction(rung.timescale) / job.frame_rate
    segments: list[Segment] = []
    left = job.chunk.frames
    while left > 0:
        frames = min(left, job.segment_frames)
        name = f"seg-{job.chunk.first_segment + len(segments):05d}.m4s"
        data = f"{job.part} {name} ".encode() * 50
        idrs = [min(job.gop_frames, frames - first) for first in range(0, frames, job.gop_frames)]
        iframes = tuple(IFrame(offset=0, size_bytes=10, ticks=int(idr * tick)) for idr in idrs)
        segments.append(Segment(name=name, size_bytes=len(data), ticks=int(frames * tick), iframes=iframes))
        _write(folder / rung.name / name, data)
        left -= frames
    _write(folder / rung.name / "init.mp4", init)
    return Track(
        name=rung.name,
        codecs="avc1.64001f",
        timescale=rung.timescale,
        init_sha256=hashlib.sha256(init).hexdigest(),
        frames=-(-job.chunk.frames // rung.frame_step),
        segments=tuple(segments),
    )


def _audio(job: AudioJob, folder: Path) -> Track:
    name = job.rendition.name
    left = round(job.duration_seconds * _AUDIO_TIMESCALE)
    length = round(job.segment_seconds * _AUDIO_TIMESCALE)
    segments: list[Segment] = []
    while left > 0:
        segment = Segment(name=f"seg-{len(segments):05d}.m4s", size_bytes=100, ticks=min(left, length))
        segments.append(segment)
        _write(folder / name / segment.name, b"a" * 100)
        left -= length
    _write(folder / name / "init.mp4", b"init")
    return Track(
        name=name,
        codecs="mp4a.40.2",
        timescale=_AUDIO_TIMESCALE,
        init_sha256=hashlib.sha256(b"init").hexdigest(),
        frames=1,
        segments=tuple(segments),
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
