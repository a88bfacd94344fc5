"""A recording's keyframes as small pictures: decoding nothing else is fifty times faster than decoding it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from control.bus.messages import VideoTrack
from control.bus.work import Work
from media_worker.hdr import to_sdr

Pixels = NDArray[np.uint8]

_TURNS: Final = {90: ("transpose=clock",), 180: ("hflip", "vflip"), 270: ("transpose=cclock",)}
_UNKNOWN: Final = 2  # ITU-T H.273: unspecified
_HD_LINES: Final = 720
# Without these two swscale takes short cuts that darken the picture by up to 5 of 255.
_EXACT: Final = "full_chroma_int+accurate_rnd"
# Fewer bytes than this are read faster than a place is sought, above all over a network.
_WORTH_A_SEEK_BYTES: Final = 1 << 20
# Indexes tell decoding times; a keyframe is decoded this much before it is shown, at most.
_REORDER_SECONDS: Final = 1


@dataclass(frozen=True)
class Picture:
    """One keyframe as it is to be seen: upright, square pixels, SDR."""

    pts: int
    """In the video's time base."""
    seconds: Fraction
    """From the replay's frame 0."""
    rgb: Pixels
    """Height × width × 3."""
    damaged: bool = False
    """Parts of it were lost and are made up."""


def fit(video: VideoTrack, long_side: int) -> tuple[int, int]:
    """Width and height of `video` on its display, its longer side at most `long_side`; even, never enlarged."""
    scale = min(Fraction(1), Fraction(long_side, max(video.width, video.height)))
    return max(2, round(video.width * scale / 2) * 2), max(2, round(video.height * scale / 2) * 2)


def keyframe_pictures(
    container: InputContainer,
    stream: VideoStream,
    video: VideoTrack,
    long_side: int,
    work: Work,
    *,
    apart_seconds: float = 0.0,
) -> Iterator[Picture]:
    """The keyframes from frame 0 on, in order, but those that come sooner than `apart_seconds` after the last.

    What does not decode is passed over. One picture in memory at a time. Raises Cancelled and DeadlineExceeded.
    """
    # Its work cannot be seen at the size of a tile.
    _prepare(container, stream, skip_loop_filter="all")
    view = _View(video, fit(video, long_side))
    apart = max(1, round(Fraction(apart_seconds) / video.time_base))
    due = video.origin_pts
    leap = _Leap(container, stream, video)
    for packet in _keyframes(container, stream, work):
        if packet.pts is not None and packet.pts < due:
            continue
        for frame in _decode(stream, packet):
            if frame.pts is not None and due <= frame.pts < video.end_pts:
                due = frame.pts + apart
                yield _picture(frame, video, view)
        leap.towards(due, packet)


def picture_at(
    container: InputContainer, stream: VideoStream, video: VideoTrack, pts: int, long_side: int, work: Work
) -> Picture | None:
    """The keyframe at `pts`, decoded anew at up to `long_side`; None where it does not decode any more."""
    _prepare(container, stream)
    view = _View(video, fit(video, long_side))
    # A little before: in a container without an index a seek lands near, not at, the place.
    for early_seconds in (0, 2, 10):
        try:
            container.seek(pts - round(early_seconds / video.time_base), stream=stream, backward=True)
        except FFmpegError:
            continue  # some demuxers refuse a place before their first packet
        for packet in _keyframes(container, stream, work):
            if packet.pts == pts and (frames := _decode(stream, packet)):
                return _picture(frames[0], video, view)
            if packet.pts is not None and packet.pts > pts:
                break
    return None


def _prepare(container: InputContainer, stream: VideoStream, **decoder_options: str) -> None:
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    # The decoder is given keyframes alone. Leaving the others out is not left to the demuxer (Discard.nonkey): in MP4
    # it does not step over the display times of what it leaves out, and gives the rest to the wrong frames.
    if not stream.codec_context.is_open:
        stream.codec_context.thread_count = 1
        stream.codec_context.options = decoder_options


class _Leap:
    """Passes over what nobody needs by the container's index, where there is one and it saves reading much."""

    def __init__(self, container: InputContainer, stream: VideoStream, video: VideoTrack) -> None:
        self._container = container
        self._stream = stream
        # MP4's index has every frame; others have some keyframes, or those already read.
        self._complete = container.format.name.startswith("mov")
        self._slack = round(_REORDER_SECONDS / video.time_base) if self._complete else 0
        self._reached = video.origin_pts

    def towards(self, due: int, packet: Packet[VideoStream]) -> None:
        """Go on reading, from `packet`, at the last keyframe that makes sure none from `due` on is missed."""
        entries = self._stream.index_entries
        number = entries.search_timestamp(due - self._slack, backward=not self._complete, any_frame=False)
        if number < 0 or packet.pos is None or packet.pts is None or packet.dts is None:
            return
        entry = entries[number]
        if entry.timestamp <= self._reached or entry.pos - packet.pos < _WORTH_A_SEEK_BYTES:
            return
        # Each place once: a demuxer that lands before it is read from there.
        self._reached = entry.timestamp
        # MP4's demuxer enters at the keyframe before one that is shown later than the time it is given.
        shown_later = packet.pts - packet.dts if self._complete else 0
        try:
            self._container.seek(entry.timestamp + shown_later, stream=self._stream, backward=True)
        except FFmpegError:
            return  # reading goes on where it was


def _keyframes(container: InputContainer, stream: VideoStream, work: Work) -> Iterator[Packet[VideoStream]]:
    packets = container.demux(stream)
    while True:
        work.check()
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return  # the end, or where a recording broke off
        if packet.is_keyframe and packet.size:
            yield packet


def _decode(stream: VideoStream, packet: Packet[VideoStream]) -> list[VideoFrame]:
    """A keyframe's picture, at once: a decoder left to itself waits for the pictures around it, and with those left out
    may give keyframes in the wrong order (open GOPs)."""
    context = stream.codec_context
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except FFmpegError:
        frames = []  # damaged; the next keyframe stands by itself
    context.flush_buffers()
    return frames


def _picture(frame: VideoFrame, video: VideoTrack, view: _View) -> Picture:
    pts = frame.pts or 0
    return Picture(pts, (pts - video.origin_pts) * video.time_base, view.render(frame), frame.is_corrupt)


class _View:
    """How frames of one recording are brought to the screen. A live may change its picture midway; so may the graph."""

    def __init__(self, video: VideoTrack, size: tuple[int, int]) -> None:
        self._video = video
        self._size = size
        self._graph: Graph | None = None
        self._made_for: tuple[int, int, str] | None = None

    def render(self, frame: VideoFrame) -> Pixels:
        made_for = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._made_for != made_for:
            self._graph, self._made_for = self._build(frame), made_for
        self._graph.push(frame)
        shown = self._graph.pull()
        assert isinstance(shown, VideoFrame)  # noqa: S101  (the graph has one video sink)
        pixels = shown.to_ndarray()
        if self._video.hdr:
            return to_sdr(pixels.astype(np.uint16, copy=False), self._video)
        return pixels.astype(np.uint8, copy=False)

    def _build(self, frame: VideoFrame) -> Graph:
        width, height = self._size
        if self._video.rotation in (90, 270):
            width, height = height, width
        lines = frame.height // 2 if self._video.interlaced else frame.height
        # Means over areas are the right thing, and fast, as long as the chroma has to be made smaller too; swscale's
        # `area` gives wrong colours of more than 8 bits where it is to be made larger.
        scaler = "area" if frame.width >= 2 * width and lines >= 2 * height else "lanczos"
        filters = [
            # Of two fields that were half a frame apart, one: no combs on what moves.
            *(("field=type=top",) if self._video.interlaced else ()),
            f"scale={width}:{height}:flags={scaler}+{_EXACT}:in_color_matrix={self._matrix(frame)}",
            *_TURNS.get(self._video.rotation, ()),
            # HDR keeps its depth until it is tone-mapped.
            f"format={'rgb48le' if self._video.hdr else 'rgb24'}",
        ]
        graph = Graph()
        graph.threads = 1
        node = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._video.time_base
        )
        for text in (*filters, "buffersink"):
            name, _, arguments = text.partition("=")
            following = graph.add(name, arguments) if arguments else graph.add(name)
            node.link_to(following)
            node = following
        graph.configure()
        return graph

    def _matrix(self, frame: VideoFrame) -> str:
        """What the scaler is to take the colours for. Of a picture that does not say, what players take it for."""
        if int(frame.colorspace) != _UNKNOWN:
            return "auto"
        if self._video.hdr:
            return "bt2020"
        return "bt709" if frame.height >= _HD_LINES else "bt601"
