"""Everything the rules are checked against: what is said and what is measured, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from media_worker.verify.facts import Format, Kind, Rendition
from media_worker.verify.iframes import IFrames
from media_worker.verify.presentation import AudioRendition, MediaPlaylist, Presentation, Variant


@dataclass(frozen=True)
class Subject:
    """One presentation."""

    said: Presentation
    measured: Mapping[str, Rendition]
    """By the media playlist's `where`."""
    iframes: tuple[IFrames, ...]

    def of(self, playlist: MediaPlaylist) -> Rendition:
        return self.measured[playlist.where]

    @property
    def playlists(self) -> tuple[MediaPlaylist, ...]:
        """Every media playlist once, I-frame playlists last."""
        named = [each.playlist for each in self.said.variants]
        named += [each.playlist for each in self.said.audio if each.playlist]
        named += [each.playlist for each in self.said.iframes]
        return tuple({each.where: each for each in named}.values())

    @property
    def video(self) -> tuple[Rendition, ...]:
        """Every variant's rendition that has video, once each."""
        found = (self.of(each.playlist) for each in self.said.variants)
        return tuple({each.where: each for each in found if each.format("video")}.values())

    @property
    def video_variants(self) -> Iterator[tuple[Variant, Rendition]]:
        """Every EXT-X-STREAM-INF whose segments hold video."""
        for variant in self.said.variants:
            rendition = self.of(variant.playlist)
            if rendition.format("video"):
                yield variant, rendition

    @property
    def sound(self) -> tuple[Rendition, ...]:
        """Every audio rendition with a playlist of its own, and every audio-only variant, once each."""
        named = [each.playlist for each in self.said.audio if each.playlist]
        named += [each.playlist for each in self.said.variants]
        found = (self.of(each) for each in named)
        return tuple({each.where: each for each in found if each.format("audio") and not each.format("video")}.values())

    @property
    def kinds(self) -> Iterator[tuple[Rendition, Kind]]:
        """Every track that was measured."""
        for rendition in self.measured.values():
            for kind in ("video", "audio"):
                if rendition.format(kind):
                    yield rendition, kind

    def group(self, variant: Variant) -> tuple[Rendition, ...]:
        """The measured audio renditions that play with a variant."""
        return tuple(self.of(each.playlist) for each in self.said.group(variant) if each.playlist)

    def formats(self, variant: Variant) -> tuple[Format, ...]:
        """All formats a player meets with a variant."""
        found = [*self.of(variant.playlist).formats]
        for rendition in self.group(variant):
            found += rendition.formats
        return tuple(dict.fromkeys(found))

    @property
    def longest_frame(self) -> Fraction | None:
        """The longest frame duration among the video renditions; None without video."""
        return max((each.frame_seconds("video") or Fraction(0) for each in self.video), default=None)


def average_bps(pieces: Sequence[tuple[int, Fraction]]) -> Fraction:
    """Average segment bit rate of (bytes, seconds): rfc8216bis section 4.1."""
    seconds = sum((lasts for _, lasts in pieces), Fraction(0))
    return 8 * sum(size for size, _ in pieces) / seconds if seconds else Fraction(0)


def peak_bps(pieces: Sequence[tuple[int, Fraction]], target_seconds: int | None) -> Fraction:
    """Peak segment bit rate: the largest over runs of 0.5 to 1.5 target durations (rfc8216bis section 4.1)."""
    target = target_seconds or max((round(lasts) for _, lasts in pieces), default=1) or 1
    runs = (8 * size / lasts for size, lasts in _runs(pieces, Fraction(3, 2) * target) if 2 * lasts >= target)
    return max(runs, default=average_bps(pieces))


def _runs(pieces: Sequence[tuple[int, Fraction]], most: Fraction) -> Iterator[tuple[int, Fraction]]:
    for first in range(len(pieces)):
        size, seconds = 0, Fraction(0)
        for index in range(first, len(pieces)):
            size, seconds = size + pieces[index][0], seconds + pieces[index][1]
            if seconds > most:
                break
            if seconds:
                yield size, seconds


def weights(rendition: Rendition) -> list[tuple[int, Fraction]]:
    """(bytes, EXTINF) of a rendition's segments."""
    return [(each.size_bytes, each.told.seconds) for each in rendition.segments]


def rates(renditions: Iterable[Rendition]) -> tuple[Fraction, Fraction]:
    """The largest average and the largest peak among renditions, in bit/s; zeros without any."""
    found = [(average_bps(weights(each)), peak_bps(weights(each), each.playlist.target_seconds)) for each in renditions]
    return max((each[0] for each in found), default=Fraction(0)), max((each[1] for each in found), default=Fraction(0))


def silent(subject: Subject) -> Iterator[AudioRendition]:
    """Audio renditions whose playlist holds no audio."""
    for each in subject.said.audio:
        rendition = subject.of(each.playlist) if each.playlist else None
        if rendition and rendition.whole and not rendition.format("audio"):
            yield each
