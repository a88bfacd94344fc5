"""What is measured of segments, apart from what playlists claim. Times are exact seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from media_worker.verify.presentation import MediaPlaylist, SegmentRef

Kind = Literal["video", "audio"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a track is coded, from the init segment or the stream itself."""

    kind: Kind
    codecs: str
    width: int = 0
    height: int = 0
    sample_rate: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One track's part of one segment."""

    format: Format
    slack: Fraction
    """How far its timestamps may be off by the container's own rounding."""
    decode_begin: Fraction
    decode_end: Fraction
    begin: Fraction
    """Presentation time of its first sample to be shown."""
    end: Fraction
    samples: int
    times: tuple[Fraction, ...]
    """Presentation times of the samples, ascending; dropped once they are compared with what is decoded."""
    sample_seconds: Fraction | None
    """The duration of every sample, where they are all the same; None where they differ."""
    idrs: tuple[Fraction, ...]
    """Presentation times of the IDR frames."""
    starts_with_idr: bool
    breaks: tuple[str, ...] = ()
    """Places inside the segment where its own timeline has a hole or an overlap."""

    @property
    def seconds(self) -> Fraction:
        return self.end - self.begin


@dataclass(slots=True)
class MeasuredSegment:
    """A segment of a playlist with what is really in it."""

    told: SegmentRef
    size_bytes: int = 0
    pieces: tuple[Piece, ...] = ()
    problem: str | None = None
    """Why it could not be measured."""
    lacks_init: bool = False
    """The reason is a missing EXT-X-MAP."""

    def piece(self, kind: Kind) -> Piece | None:
        return next((piece for piece in self.pieces if piece.format.kind == kind), None)


@dataclass(slots=True)
class Decoded:
    """What a decoder made of a rendition's track."""

    kind: Kind
    frames: int = 0
    problems: list[str] = field(default_factory=list)
    """Errors of the decoder."""
    disorder: list[str] = field(default_factory=list)
    """Frames that are missing, out of order, or not where their samples say."""


@dataclass(slots=True)
class Rendition:
    """A media playlist with all its segments measured."""

    playlist: MediaPlaylist
    segments: list[MeasuredSegment] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)

    @property
    def where(self) -> str:
        return self.playlist.where

    @property
    def whole(self) -> bool:
        """Every segment could be measured, so sums over it mean something."""
        return bool(self.segments) and all(not segment.problem and segment.pieces for segment in self.segments)

    def pieces(self, kind: Kind) -> list[Piece]:
        return [piece for segment in self.segments if (piece := segment.piece(kind))]

    def format(self, kind: Kind) -> Format | None:
        return next((piece.format for piece in self.pieces(kind)), None)

    @property
    def formats(self) -> tuple[Format, ...]:
        """Every format that occurs, in order of appearance."""
        return tuple(dict.fromkeys(piece.format for segment in self.segments for piece in segment.pieces))

    def seconds(self, kind: Kind) -> Fraction:
        """Sum of what the segments hold."""
        return sum((piece.seconds for piece in self.pieces(kind)), Fraction(0))

    @property
    def main(self) -> Kind:
        """What a player shows of it: video where there is any."""
        return "video" if self.format("video") else "audio"

    def samples(self, kind: Kind) -> int:
        return sum(piece.samples for piece in self.pieces(kind))

    def frame_seconds(self, kind: Kind) -> Fraction | None:
        """Duration of a frame: the constant one, or the mean. None without that kind."""
        pieces = self.pieces(kind)
        if not pieces:
            return None
        steady = {piece.sample_seconds for piece in pieces}
        if len(steady) == 1 and (only := next(iter(steady))) is not None:
            return only
        return self.seconds(kind) / max(1, self.samples(kind))

    def steady(self, kind: Kind) -> bool:
        """All frames last equally long."""
        steady = {piece.sample_seconds for piece in self.pieces(kind)}
        return len(steady) == 1 and None not in steady
