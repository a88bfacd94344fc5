"""Decodes a run of segments wholly and compares the frames with what the samples promised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from media_worker.verify.facts import Decoded, Kind

_MOST_MESSAGES = 5
_AUDIO_TOLERANCE_SECONDS = 0.001


class _Pipe:
    """A file that cannot seek, made of the pieces a callable gives until it gives None."""

    def __init__(self, pull: Callable[[], bytes | None]) -> None:
        self._pull = pull
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            more = self._pull()
            if more is None:
                return b""
            self._rest = memoryview(more)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def decode_run(pull: Callable[[], bytes | None], promised: deque[Fraction]) -> list[Decoded]:
    """Decode all audio and video that `pull` gives, a segment at a time, as one stream.

    `promised` is filled, as `pull` is called, with the presentation times of the video's samples. Never raises on bad
    media: what is wrong is in the result.
    """
    try:
        with av.open(_Pipe(pull), mode="r") as container:
            return _decode(container, promised)
    except (av.FFmpegError, ValueError) as error:
        return [Decoded("video" if promised else "audio", problems=[f"it cannot be opened: {error}"])]


def _decode(container: av.container.InputContainer, promised: deque[Fraction]) -> list[Decoded]:
    streams = [each for each in container.streams if isinstance(each, (VideoStream, AudioStream))]
    watchers: dict[int, _Watcher] = {}
    for stream in streams:
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.options = {"err_detect": "explode"}
        watchers[stream.index] = _Video(promised) if isinstance(stream, VideoStream) else _Audio()
    try:
        for packet in container.demux(streams):
            watcher = watchers[packet.stream.index]
            try:
                watcher.take(packet.decode())
            except av.FFmpegError as error:
                when = "?" if packet.pts is None else f"{float(packet.pts * packet.time_base):.3f} s"
                watcher.problem(f"the decoder fails at {when}: {error.strerror or error}")
    except av.FFmpegError as error:
        for watcher in watchers.values():
            watcher.problem(f"the demuxer fails: {error.strerror or error}")
    return [watcher.close() for watcher in watchers.values()]


class _Watcher:
    kind: Kind

    def __init__(self) -> None:
        self.result = Decoded(self.kind)

    def take(self, frames: Iterable[object]) -> None:
        raise NotImplementedError

    def close(self) -> Decoded:
        return self.result

    def problem(self, message: str) -> None:
        if len(self.result.problems) < _MOST_MESSAGES:
            self.result.problems.append(message)

    def disorder(self, message: str) -> None:
        if len(self.result.disorder) < _MOST_MESSAGES:
            self.result.disorder.append(message)


class _Video(_Watcher):
    kind = "video"

    def __init__(self, promised: deque[Fraction]) -> None:
        super().__init__()
        self._promised = promised
        self._origin: Fraction | None = None
        self._last: Fraction | None = None
        self._lost = False

    def take(self, frames: Iterable[object]) -> None:
        for frame in frames:
            if not isinstance(frame, VideoFrame):
                continue
            self.result.frames += 1
            if frame.is_corrupt:
                self.problem(f"frame {self.result.frames - 1} is corrupt")
            if frame.pts is None or frame.time_base is None:
                self.disorder(f"frame {self.result.frames - 1} has no presentation time")
                continue
            self._compare(frame.pts * frame.time_base)

    def _compare(self, at: Fraction) -> None:
        if self._last is not None and at <= self._last:
            self.disorder(f"the frame at {float(at):.4f} s comes after the one at {float(self._last):.4f} s")
        self._last = at
        if not self._promised or self._lost:
            return
        # libav counts from the container's own start; the distances must agree.
        expected = self._promised.popleft()
        if self._origin is None:
            self._origin = at - expected
        # A frame off is found; a rounding of the container's clock (1 ms in the coarsest) is not blamed.
        if abs(at - self._origin - expected) > Fraction(2, 1000):
            self.disorder(
                f"a frame is shown at {float(at - self._origin):.4f} s, its sample says {float(expected):.4f} s"
            )
            self._lost = True

    def close(self) -> Decoded:
        return self.result


class _Audio(_Watcher):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._expected: Fraction | None = None

    def take(self, frames: Iterable[object]) -> None:
        for frame in frames:
            if not isinstance(frame, AudioFrame) or frame.pts is None or frame.time_base is None:
                continue
            self.result.frames += 1
            at = frame.pts * frame.time_base
            if self._expected is not None and abs(at - self._expected) > _AUDIO_TOLERANCE_SECONDS:
                self.disorder(f"sound jumps by {float(at - self._expected):+.4f} s at {float(at):.3f} s")
            self._expected = at + Fraction(frame.samples, frame.sample_rate)
