"""Measures fragmented MP4 segments from their boxes alone, without decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from media_worker.boxes import BoxError, Fragment, InitInfo, Sample, nal_types, parse_fragments
from media_worker.verify.facts import Format, Kind, Piece

_H264 = frozenset({"avc1", "avc3"})
_HEVC = frozenset({"hvc1", "hev1"})
_HEVC_IDR = frozenset({19, 20})  # IDR_W_RADL, IDR_N_LP: ITU-T H.265 table 7-1


def format_of(track: InitInfo) -> Format:
    """The format an init segment declares."""
    kind: Kind = "video" if track.handler == "vide" else "audio"
    return Format(kind, track.codecs, track.width, track.height, track.sample_rate)


def is_idr(data: bytes, sample: Sample, track: InitInfo) -> bool:
    """Whether a decoder can start at the sample. Codecs other than H.264 and HEVC are taken at their sync flag."""
    if not sample.sync:
        return False
    if track.entry.format in _H264:
        return 5 in nal_types(data, sample, track.nal_length_size)
    if track.entry.format in _HEVC:
        return not _HEVC_IDR.isdisjoint(nal_types(data, sample, track.nal_length_size, hevc=True))
    return True


def measure_fragments(data: bytes, tracks: Sequence[InitInfo]) -> tuple[Piece, ...]:
    """What each track has in a segment. Raises BoxError on malformed bytes, and where no track has anything."""
    pieces = tuple(piece for track in tracks if (piece := _piece(data, track)))
    if not pieces:
        raise BoxError("the segment holds no sample of any track of its init segment")
    return pieces


def _piece(data: bytes, track: InitInfo) -> Piece | None:
    fragments = [fragment for fragment in parse_fragments(data, track) if fragment.samples]
    if not fragments:
        return None
    tick = Fraction(1, track.timescale)
    # Media time `edit_media_time` is shown at the presentation's zero, after the empty edits: 14496-12 section 8.6.6.
    shift = track.edit_delay_seconds - (track.edit_media_time or 0) * tick
    shown: list[tuple[int, int]] = []
    idrs: list[Fraction] = []
    first_is_idr = False
    for fragment in fragments:
        at = fragment.base_decode_time
        for sample in fragment.samples:
            shown.append((at + sample.composition_offset, sample.duration))
            if track.handler == "vide" and is_idr(data, sample, track):
                idrs.append((at + sample.composition_offset) * tick + shift)
                first_is_idr = first_is_idr or len(shown) == 1
            at += sample.duration
    shown.sort()
    durations = {duration for _, duration in shown}
    begin, end = shown[0][0] * tick + shift, max(at + duration for at, duration in shown) * tick + shift
    if track.edit_media_time is not None:
        begin = max(begin, track.edit_delay_seconds)  # what the edit list leaves out is decoded, but not shown
    return Piece(
        format=format_of(track),
        slack=tick,
        decode_begin=fragments[0].base_decode_time * tick,
        decode_end=(fragments[-1].base_decode_time + fragments[-1].duration) * tick,
        begin=begin,
        end=end,
        samples=len(shown),
        times=tuple(at * tick + shift for at, _ in shown) if track.handler == "vide" else (),
        sample_seconds=durations.pop() * tick if len(durations) == 1 else None,
        idrs=tuple(idrs),
        starts_with_idr=first_is_idr,
        breaks=(*_breaks(fragments, tick), *_uneven(shown, tick)),
    )


def _breaks(fragments: Sequence[Fragment], tick: Fraction) -> Iterator[str]:
    for before, after in pairwise(fragments):
        expected = before.base_decode_time + before.duration
        if after.base_decode_time != expected:
            off = float((after.base_decode_time - expected) * tick)
            yield f"a fragment's decode time is {after.base_decode_time}, {off:+.4f} s off {expected}"


def _uneven(shown: Sequence[tuple[int, int]], tick: Fraction) -> Iterator[str]:
    """Frames of constant duration whose presentation times are not that far apart."""
    lasts = shown[0][1]
    if any(duration != lasts for _, duration in shown):
        if any(a[0] == b[0] for a, b in pairwise(shown)):
            yield "two frames have the same presentation time"
        return
    for (at, _), (then, _) in pairwise(shown):
        if abs(then - at - lasts) > 1:
            yield f"frames are {float((then - at) * tick):.4f} s apart at {float(at * tick):.4f} s, not {lasts * tick}"
            return
