"""A recording, as probed. Times are integers in the track's `time_base`, or seconds where they say so."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from control.bus.messages.base import Message


class Note(Message):
    """Something a person should know of a recording that could be used all the same."""

    code: str = Field(examples=["recording-truncated"])
    detail: str


class VideoTrack(Message):
    """The video of a recording, as probed."""

    index: int
    """The stream's index in the container."""
    codec: str
    profile: str | None = None
    coded_width: int
    coded_height: int
    width: int
    """Display width in square pixels, after rotation."""
    height: int
    """Display height in square pixels, after rotation."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Clockwise degrees the decoded picture must be turned by."""
    sample_aspect: Fraction = Fraction(1)
    frame_rate: Fraction
    """The source's own rate: exact for constant rate, nominal for variable."""
    variable_frame_rate: bool = False
    interlaced: bool = False
    bit_depth: int = 8
    pixel_format: str
    hdr: bool = False
    """PQ or HLG transfer: needs tone-mapping for an SDR ladder."""
    color_space: str | None = None
    color_primaries: str | None = None
    color_transfer: str | None = None
    color_range: str | None = None
    time_base: Fraction
    origin_pts: int
    """Presentation time of the first decodable frame: frame 0 of the replay."""
    end_pts: int
    """End of the last frame."""
    frames: int
    """Decodable frames."""
    keyframes: tuple[int, ...]
    """Presentation times of the keyframes the video may be entered at, ascending, thinned to 0.5 s apart."""


class AudioTrack(Message):
    """One audio track of a recording, as probed."""

    index: int
    codec: str
    profile: str | None = None
    channels: int
    sample_rate: int
    language: str | None = None
    title: str | None = None
    start_seconds: float
    """Start on the container's clock (the video's origin is `origin_pts * time_base` on the same clock)."""
    end_seconds: float
    has_gaps: bool = False
    """Timestamps jump somewhere: it cannot be copied, only encoded with the gaps filled by silence."""


class ComplexityPoint(Message):
    """What constant quality took at one size, kbit/s with a keyframe every 2 s at the recording's own frame rate."""

    short_side: int
    mean_kbps: int
    busy_kbps: int
    """Upper quartile of the places looked at: each chunk is encoded for itself; busy ones must look well too."""


class Complexity(Message):
    """How many bits the pictures of a recording need, by short encodes at places spread over it."""

    crf: int
    """x264's constant rate factor: what quality was held."""
    frame_rate: Fraction
    places: int
    points: tuple[ComplexityPoint, ...]
    """Of two sizes, the larger first."""


class MediaInfo(Message):
    """All the facts of a recording that planning needs."""

    source: str
    container: str
    size_bytes: int
    duration_seconds: float
    video: VideoTrack
    audio: tuple[AudioTrack, ...] = ()
    notes: tuple[Note, ...] = ()
    complexity: Complexity | None = None
    """None where it was not asked for, or could not be measured."""
