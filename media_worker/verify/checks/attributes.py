"""Whether the attributes of EXT-X-STREAM-INF are there, and true."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from media_worker.verify.checks import Faults
from media_worker.verify.facts import Rendition
from media_worker.verify.presentation import Variant
from media_worker.verify.subject import Subject, rates

_RATE_TOLERANCE = Fraction(1, 10)
# Tells 30 from 29.97 and 24 from 23.976, and allows for three decimals and a 90 kHz clock.
_FRAME_RATE_TOLERANCE = Fraction(1, 100)
# HE-AAC may be signalled implicitly: the stream's configuration then says AAC-LC (ISO/IEC 14496-3 section 1.6.6).
_IMPLICIT_SBR = frozenset({"mp4a.40.5", "mp4a.40.29"})
_TEXT = ("wvtt", "stpp", "tx3g")


def codecs(subject: Subject) -> Faults:
    for variant in subject.said.variants if subject.said.is_master else ():
        where = variant.playlist.where
        if not variant.codecs:
            yield where, "CODECS is missing"
            continue
        said = [codec for codec in variant.codecs if not codec.startswith(_TEXT)]
        real = [each.codecs for each in subject.formats(variant)]
        for codec in real:
            if not any(_same_codec(one, codec) for one in said):
                yield where, f"CODECS is {','.join(variant.codecs)}, but the media is {codec}"
        if subject.of(variant.playlist).whole and all(each.whole for each in subject.group(variant)):
            for codec in said:
                if not any(_same_codec(codec, one) for one in real):
                    yield where, f"CODECS promises {codec}, which is not in the media ({', '.join(real)})"


def _same_codec(said: str, real: str) -> bool:
    if said.lower() == real.lower():
        return True
    if real == "mp4a.40.2" and said in _IMPLICIT_SBR:
        return True
    return "." not in real and said.lower().split(".")[0] == real.lower()


def resolution(subject: Subject) -> Faults:
    for variant, rendition in subject.video_variants:
        if not subject.said.is_master:
            return
        real = {(each.width, each.height) for each in rendition.formats if each.kind == "video"}
        if variant.resolution is None:
            yield rendition.where, "RESOLUTION is missing"
        elif tuple(variant.resolution) not in real:
            told = "{}x{}".format(*variant.resolution)
            yield rendition.where, f"RESOLUTION is {told}, the video is {' and '.join(f'{w}x{h}' for w, h in real)}"


def frame_rate(subject: Subject) -> Faults:
    for variant, rendition in subject.video_variants:
        if not subject.said.is_master:
            return
        lasts = rendition.frame_seconds("video")
        if variant.frame_rate is None:
            yield rendition.where, "FRAME-RATE is missing"
        elif lasts:
            real = 1 / lasts
            off = variant.frame_rate - real
            # Of variable rates, FRAME-RATE is the highest: RFC 8216 section 4.3.4.2.
            if off < -_FRAME_RATE_TOLERANCE or (off > _FRAME_RATE_TOLERANCE and rendition.steady("video")):
                yield rendition.where, f"FRAME-RATE is {float(variant.frame_rate):.3f}, the video has {float(real):.3f}"


def bandwidth(subject: Subject) -> Faults:
    for variant, _, peak in _measured(subject):
        yield from _compare(variant, "BANDWIDTH", variant.bandwidth, peak, "peak")


def average_bandwidth(subject: Subject) -> Faults:
    for variant, average, _ in _measured(subject):
        yield from _compare(variant, "AVERAGE-BANDWIDTH", variant.average_bandwidth, average, "average")


def peak(subject: Subject) -> Faults:
    for variant, average, highest in _measured(subject):
        if highest > 2 * average:
            share = float(100 * highest / average)
            yield variant.playlist.where, f"the peak bit rate is {share:.0f} % of the average"


def _measured(subject: Subject) -> Iterator[tuple[Variant, Fraction, Fraction]]:
    """(variant, average, peak) where everything the variant plays could be measured."""
    if not subject.said.is_master:
        return
    for variant in subject.said.variants:
        parts: list[Rendition] = [subject.of(variant.playlist), *subject.group(variant)]
        if not all(part.whole for part in parts):
            continue
        own, sound = rates(parts[:1]), rates(parts[1:])
        if own[0]:
            yield variant, own[0] + sound[0], own[1] + sound[1]


def _compare(variant: Variant, name: str, said: int | None, real: Fraction, what: str) -> Faults:
    if said is None:
        yield variant.playlist.where, f"{name} is missing"
    elif abs(real - said) > _RATE_TOLERANCE * said:
        share = float(100 * real / said) if said else float("inf")
        yield variant.playlist.where, f"{name} is {said}, the measured {what} is {round(real)} ({share:.0f} %)"
