"""One pass over a recording's packets, nothing decoded: every timestamp, every keyframe, where it breaks off."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard
from av.video.stream import VideoStream

from control.bus.work import Work
from media_worker.timeline import Ticks

# An audio step this much off its packet's length is a gap that copying would carry along.
_AUDIO_GAP_SECONDS: Final = 0.1
_CHECK_EVERY: Final = 4096


@dataclass
class AudioScan:
    """Extent of one audio track, in its time base."""

    tick: Fraction
    start: int | None = None
    end: int = 0
    gaps: int = 0

    def add(self, pts: int, duration: int) -> None:
        if self.start is None:
            self.start = pts
        elif abs(pts - self.end) * self.tick > _AUDIO_GAP_SECONDS:
            self.gaps += 1
        self.end = max(self.end, pts + duration)


@dataclass
class Scan:
    """What the packets said. Video times in the video's time base, decode order."""

    pts: Ticks
    dts: Ticks
    keyframes: list[int]
    corrupt: int
    audio: dict[int, AudioScan] = field(default_factory=dict)
    broke_off: str | None = None
    """Why reading ended before the file's end, if it did."""


def scan(container: InputContainer, video: VideoStream, audio: list[AudioStream], work: Work) -> Scan:
    """Read all packets of `video` and `audio`. Raises Cancelled and DeadlineExceeded through `work`."""
    pts, dts, keyframes = array("q"), array("q"), array("q")
    corrupt = 0
    broke_off = None
    index = video.index
    tracks = {stream.index: AudioScan(stream.time_base or Fraction(1, 48000)) for stream in audio}
    unread = []
    for stream in audio:
        if _from_index(stream, tracks[stream.index]):
            stream.discard = Discard.all
        else:
            unread.append(stream)
    try:
        for number, packet in enumerate(container.demux(video, *unread)):
            if number % _CHECK_EVERY == 0:
                work.check()
            time = packet.pts
            if packet.stream_index == index:
                decode_time = packet.dts
                if time is None:
                    time = decode_time
                if time is None or packet.size == 0:
                    continue  # the flush packet at the end, or a picture without a time (AVI's dropped frames)
                pts.append(time)
                dts.append(time if decode_time is None else decode_time)
                corrupt += packet.is_corrupt
                if packet.is_keyframe and not packet.is_corrupt:
                    keyframes.append(time)
            elif time is not None and packet.size:
                tracks[packet.stream_index].add(time, packet.duration or 0)
    except FFmpegError as error:
        # A file cut off in the middle of a write: everything before it is good.
        broke_off = error.strerror or str(error)
    return Scan(
        pts=np.frombuffer(pts, dtype=np.int64).copy(),
        dts=np.frombuffer(dts, dtype=np.int64).copy(),
        keyframes=keyframes.tolist(),
        corrupt=corrupt,
        audio=tracks,
        broke_off=broke_off,
    )


def _from_index(stream: AudioStream, track: AudioScan) -> bool:
    """Fill `track` from the container's index, where it has one of every packet (MP4): three packets in five are
    audio, and reading them only for their times is the larger part of a scan."""
    times = np.fromiter((entry.timestamp for entry in stream.index_entries), dtype=np.int64)
    if len(times) < 2 or stream.frames != len(times):
        return False
    steps = np.diff(times)
    usual = int(np.median(steps))
    track.start = int(times[0])
    track.end = int(times[-1]) + usual
    track.gaps = int(np.sum(np.abs(steps - usual) * float(track.tick) > _AUDIO_GAP_SECONDS))
    return True
