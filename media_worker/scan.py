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

# Sound this far off the clock its packets make is a gap: copying would close it up, and one sees lips and voice part
# (EBU R 37: at most 40 ms early, 60 ms late).
GAP_SECONDS: Final = 0.05
_CHECK_EVERY: Final = 4096
_TS_PACKETS: Final = (188, 192, 204)  # MPEG-2 transport stream: plain, with time codes (M2TS), with Reed-Solomon bytes


@dataclass
class AudioScan:
    """Extent of one audio track, in its time base."""

    tick: Fraction
    packet: float | None = None
    """Exact length of every packet; None where they differ or nobody knows. A packet lost now and then shows by it:
    none of the gaps is long, but they add up."""
    start: int | None = None
    end: int = 0
    gaps: int = 0

    def __post_init__(self) -> None:
        self._gap = GAP_SECONDS / float(self.tick)
        self._due = 0.0

    def add(self, pts: int, duration: int) -> None:
        if self.start is None:
            self.start, self._due = pts, float(pts)
        if abs(pts - self._due) > self._gap:
            self.gaps += 1
            self._due = float(pts)
        self.end = pts + duration  # not the latest of all: a damaged packet may name any time
        self._due = self._due + self.packet if self.packet else self.end


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
    cut = False
    broke_off = None
    index = video.index
    tracks = {stream.index: _track(stream) for stream in audio}
    unread = []
    for stream in audio:
        if _from_index(stream, tracks[stream.index], container.size):
            stream.discard = Discard.all
        else:
            unread.append(stream)
    try:
        for number, packet in enumerate(container.demux(video, *unread)):
            if number % _CHECK_EVERY == 0:
                work.check()
            time = packet.pts
            if packet.size:
                cut = packet.is_corrupt
            if packet.stream_index == index:
                decode_time = packet.dts
                if time is None:
                    time = decode_time
                if time is None or packet.size == 0:
                    continue  # the flush packet at the end, or a picture without a time (AVI's dropped frames)
                pts.append(time)
                dts.append(time if decode_time is None else decode_time)
                corrupt += cut
                if packet.is_keyframe and not cut:
                    keyframes.append(time)
            elif time is not None and packet.size:
                tracks[packet.stream_index].add(time, packet.duration or 0)
    except FFmpegError as error:
        # A file cut off in the middle of a write: everything before it is good.
        broke_off = error.strerror or str(error)
    if broke_off is None and (cut or _torn(container)):
        broke_off = "it ends in the middle of a packet"
    return Scan(
        pts=np.frombuffer(pts, dtype=np.int64).copy(),
        dts=np.frombuffer(dts, dtype=np.int64).copy(),
        keyframes=keyframes.tolist(),
        corrupt=corrupt,
        audio=tracks,
        broke_off=broke_off,
    )


def _track(stream: AudioStream) -> AudioScan:
    tick = stream.time_base or Fraction(1, 48000)
    context = stream.codec_context
    # Of AAC alone: it is what may be copied. Others have packets of many lengths.
    if context is None or context.name != "aac" or not context.frame_size or not context.sample_rate:
        return AudioScan(tick)
    return AudioScan(tick, context.frame_size / context.sample_rate / float(tick))


def _torn(container: InputContainer) -> bool:
    """Whether a transport stream ends within a packet: it has no length of its own that would tell."""
    return container.format.name == "mpegts" and all(container.size % length for length in _TS_PACKETS)


def _from_index(stream: AudioStream, track: AudioScan, size_bytes: int) -> bool:
    """Fill `track` from the container's index, where it has one of every packet (MP4): three packets in five are
    audio, and reading them only for their times is the larger part of a scan."""
    entries = stream.index_entries
    if len(entries) < 2 or stream.frames != len(entries):
        return False
    if (last := entries[-1]).pos + last.size > size_bytes:
        return False  # the index came first, and the file was cut off
    times = np.fromiter((entry.timestamp for entry in entries), dtype=np.int64)
    steps = np.diff(times)
    usual = int(np.median(steps))
    track.start = int(times[0])
    track.end = int(times[-1]) + usual
    even = times[0] + np.arange(len(times)) * (track.packet or usual)
    gap = GAP_SECONDS / float(track.tick)
    track.gaps = int(np.sum(np.abs(steps - usual) > gap)) or int(np.abs(times - even).max() > gap)
    return True
