"""What media tasks answer, and how far they have come."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from control.bus.messages.base import Message
from control.bus.messages.nodes import CPU_DEVICE


class IFrame(Message):
    """The byte range of a segment that holds one IDR frame alone (from its `moof`)."""

    offset: int
    size_bytes: int
    ticks: int
    """From this IDR to the next (or to the segment's end)."""


class Segment(Message):
    """One media segment in the store."""

    name: str = Field(examples=["seg-00000.m4s"])
    size_bytes: int
    ticks: int
    """Its duration in the rendition's timescale."""
    iframes: tuple[IFrame, ...] = ()
    """Empty for audio."""


class Track(Message):
    """The segments a task made for one rendition."""

    name: str
    codecs: str = Field(examples=["avc1.64001f"])
    """RFC 6381."""
    timescale: int
    init_sha256: str
    frames: int
    """Samples in all segments."""
    segments: tuple[Segment, ...]


class ChunkResult(Message):
    """Answer of `media.transcode_chunk`."""

    index: int
    tracks: tuple[Track, ...]
    """One a rung, in the job's order."""
    encoder: str
    encoders: tuple[str, ...] = ()
    """The encoder of each rung, in the job's order."""
    node: str = ""
    """The host that made it."""
    device: str = CPU_DEVICE
    """What it was made on; of several, the first rung's."""
    tier: str = CPU_DEVICE
    fallbacks: tuple[str, ...] = ()
    """What was not had as wanted before it was made, a line each."""
    seconds: float
    """Wall time of the encoder when the chunk was made, be it in an earlier run."""
    reused: bool = False


class AudioResult(Message):
    """Answer of `media.encode_audio`."""

    track: Track
    mode: Literal["copy", "encode"]
    seconds: float
    loudness_lufs: float | None = None
    """Integrated loudness of the source (EBU R 128); None for silence or where it was not measured."""
    reused: bool = False


class Thumbnail(Message):
    """One candidate picture."""

    name: str
    seconds: float
    """Its exact time in the replay."""
    score: float
    width: int
    height: int


class ThumbnailResult(Message):
    """Answer of `media.generate_stream_thumbnail`."""

    poster: Thumbnail
    candidates: tuple[Thumbnail, ...]
    storyboard: str
    """Name of the WebVTT file."""
    sheets: tuple[str, ...]
    tiles: int
    seconds: float
    reused: bool = False


class Progress(Message):
    """How far one part has come."""

    done_frames: int
    total_frames: int
    fps: float
    """Since the last report."""
