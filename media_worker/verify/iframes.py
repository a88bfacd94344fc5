"""Reads I-frame playlists and looks into every byte range they name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from media_worker.boxes import BoxError, InitInfo, parse_fragments
from media_worker.verify.fetch import Fetcher, FetchError, Ref
from media_worker.verify.measure import is_idr
from media_worker.verify.measure_av import UnreadableSegment, measure_demuxed
from media_worker.verify.presentation import SegmentRef, Variant
from media_worker.verify.read import InitCache


@dataclass(slots=True)
class IFrames:
    """An I-frame playlist and what its byte ranges hold."""

    variant: Variant
    sizes: list[int] = field(default_factory=list)
    """Bytes of every range, in the playlist's order; 0 where it could not be read."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(where, message) of ranges that are not what they should be."""


def read_iframes(variant: Variant, fetcher: Fetcher, broken: Collection[str]) -> IFrames:
    """Look into every range of an I-frame playlist; what lies in a `broken` resource (a URL) is blamed elsewhere."""
    found = IFrames(variant)
    inits = InitCache(fetcher)
    for url, group in groupby(variant.playlist.segments, key=lambda each: each.ref.url):
        told = list(group)
        try:
            data, begin = _hull(told, fetcher)
        except FetchError as error:
            found.sizes += [0] * len(told)
            if url not in broken:
                found.problems.append((told[0].where, str(error)))
            continue
        for each in told:
            start = each.ref.start - begin
            piece = data[start:] if each.ref.length is None else data[start : start + each.ref.length]
            found.sizes.append(len(piece))
            if each.encrypted or url in broken:
                continue
            problem = _look(each, piece, inits)
            if problem:
                found.problems.append((each.where, problem))
    return found


def _hull(told: Sequence[SegmentRef], fetcher: Fetcher) -> tuple[bytes, int]:
    """The bytes from the first range's start to the last's end: one request for all I-frames of a segment."""
    begin = min(each.ref.start for each in told)
    ends = [each.ref.start + each.ref.length for each in told if each.ref.length is not None]
    if len(ends) < len(told):
        return fetcher.segment(Ref(told[0].ref.url)), 0
    return fetcher.segment(Ref(told[0].ref.url, begin, max(ends) - begin)), begin


def _look(told: SegmentRef, data: bytes, inits: InitCache) -> str | None:
    try:
        head, tracks = inits(told.init) if told.init else (b"", ())
        video = next((track for track in tracks if track.handler == "vide"), None)
        if video is not None:
            return next(_fragment_problems(data, video), None)
        pieces = measure_demuxed(head + data)
    except (FetchError, BoxError, UnreadableSegment) as error:
        return str(error)
    if not any(piece.format.kind == "video" and piece.starts_with_idr for piece in pieces):
        return "it does not begin with an IDR frame"
    return None


def _fragment_problems(data: bytes, track: InitInfo) -> Iterator[str]:
    fragments = parse_fragments(data, track, truncated=True)
    samples = fragments[0].samples if fragments else ()
    if not samples:
        yield "it holds no moof with a frame"
        return
    first = samples[0]
    if first.offset + first.size > len(data):
        yield f"its frame ends at byte {first.offset + first.size}, but the range has {len(data)}"
    elif not is_idr(data, first, track):
        yield "its frame is no IDR"
