"""How a recording becomes a replay.

Times are whole frames of the plan's `frame_rate` grid, frame 0 being the first decodable frame of the video.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from control.bus.messages.base import Message


class Rung(Message):
    """One video rendition of a replay."""

    name: str = Field(examples=["720p"])
    """Its folder in the replay."""
    width: int
    height: int
    frame_step: Literal[1, 2] = 1
    """2 keeps every second frame of the plan's grid."""
    frame_rate: Fraction
    """Frames a second of this rung: the plan's rate over `frame_step`."""
    video_kbps: int
    max_kbps: int
    buffer_kbits: int
    profile: Literal["baseline", "main", "high"] = "high"
    timescale: int
    """Ticks a second of its media timeline; a frame is a whole number of ticks."""
    encoder: str = "libx264"
    """The encoder pinned for the whole replay: another would give another init segment."""


class RungChoice(Message):
    """What became of one step of the ladder, and why."""

    name: str = Field(examples=["720p"])
    table_kbps: int
    """What Apple's table says for it."""
    needed_kbps: int
    """What this recording was measured to need."""
    kbps: int | None
    """What it gets; None where the rung was left out."""
    why: str


class Chunk(Message):
    """A run of whole segments, made by one task."""

    index: int
    first_frame: int
    """In the plan's grid."""
    frames: int
    first_segment: int
    """Number of its first segment in every rung, from 0."""
    entry_pts: int | None
    """Keyframe to enter the source at; None reads from the start."""


class AudioRendition(Message):
    """One audio rendition of a replay."""

    name: str = Field(examples=["audio"])
    """Its folder in the replay."""
    track_index: int
    mode: Literal["copy", "encode"]
    kbps: int = 128
    sample_rate: int = 48000
    language: str | None = None
    title: str | None = None
    default: bool = True


class LeftRung(Message):
    """A rendition that was begun and left, as its encoder could not be had any more."""

    name: str
    """The folder what was made of it lies in, until the replay is complete."""
    encoder: str


class Plan(Message):
    """How a recording becomes a replay. Pure function of (MediaInfo, ladder, settings)."""

    frame_rate: Fraction
    frames: int
    """Length of the replay on the `frame_rate` grid."""
    gop_frames: int
    """About 2 s; even where a rung has `frame_step` 2."""
    segment_frames: int
    """About 6 s; a multiple of `gop_frames`."""
    rungs: tuple[Rung, ...]
    """Best first."""
    ladder: tuple[RungChoice, ...] = ()
    """Why the rungs are these, where they were chosen by the recording's content."""
    chunks: tuple[Chunk, ...]
    audio: tuple[AudioRendition, ...] = ()
    preset: str = "veryfast"
    threads: int = 1
    """Encoder threads of one chunk: pinned, as x264's output depends on it."""
    normalise_lufs: float | None = None
    left: tuple[LeftRung, ...] = ()
    """Renditions that other encoders took over, oldest first."""

    @property
    def duration_seconds(self) -> Fraction:
        return self.frames / self.frame_rate
