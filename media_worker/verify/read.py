"""Walks a rendition once, a segment at a time: measures each and, where asked, decodes the same bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from media_worker.boxes import BoxError, InitInfo, parse_tracks
from media_worker.verify.decode import decode_run
from media_worker.verify.facts import Decoded, MeasuredSegment, Piece, Rendition
from media_worker.verify.fetch import Fetcher, FetchError, Ref
from media_worker.verify.measure import measure_fragments
from media_worker.verify.measure_av import UnreadableSegment, measure_demuxed
from media_worker.verify.presentation import MediaPlaylist, SegmentRef

_TS_SYNC = b"\x47"
ENCRYPTED = "it is encrypted"


class NoInitSection(BoxError):
    """A fragment of an MP4 whose playlist gives no EXT-X-MAP."""


class InitCache:
    """The last init section read, as bytes and as tracks."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._ref: Ref | None = None
        self._kept: tuple[bytes, tuple[InitInfo, ...]] = (b"", ())

    def __call__(self, ref: Ref) -> tuple[bytes, tuple[InitInfo, ...]]:
        """Raises FetchError and BoxError."""
        if ref != self._ref:
            data = self._fetcher.segment(ref)
            # A transport stream may give its program tables this way: they are no boxes.
            self._kept = data, (() if data[:1] == _TS_SYNC else parse_tracks(data))
            self._ref = ref
        return self._kept


def read(playlist: MediaPlaylist, fetcher: Fetcher, *, decode: bool) -> Rendition:
    """Measure every segment of a playlist; with `decode`, decode every run between discontinuities too."""
    rendition = Rendition(playlist)
    inits = InitCache(fetcher)
    for run in _runs(playlist.segments):
        reader = _RunReader(run, fetcher, inits, rendition)
        if decode and not any(segment.encrypted for segment in run):
            first = reader.pull()
            if first is not None:
                reader.push_back(first)
                _add(rendition.decoded, decode_run(reader.pull, reader.promised))
        while reader.pull() is not None:  # whatever the decoder left unread is measured all the same
            reader.promised.clear()
    return rendition


def _runs(segments: tuple[SegmentRef, ...]) -> Iterator[list[SegmentRef]]:
    run: list[SegmentRef] = []
    for segment in segments:
        if run and (segment.discontinuity or segment.init != run[-1].init):
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def _add(total: list[Decoded], more: list[Decoded]) -> None:
    for each in more:
        known = next((one for one in total if one.kind == each.kind), None)
        if known is None:
            total.append(each)
            continue
        known.frames += each.frames
        known.problems += each.problems
        known.disorder += each.disorder


class _RunReader:
    """Gives the bytes of a run one readable segment after the other, its init section first."""

    def __init__(self, run: list[SegmentRef], fetcher: Fetcher, inits: InitCache, rendition: Rendition) -> None:
        self._left = iter(run)
        self._fetcher, self._inits, self._rendition = fetcher, inits, rendition
        self._begun = False
        self._given_back: bytes | None = None
        self.promised: deque[Fraction] = deque()

    def push_back(self, data: bytes) -> None:
        self._given_back = data

    def pull(self) -> bytes | None:
        if self._given_back is not None:
            data, self._given_back = self._given_back, None
            return data
        for told in self._left:
            measured = MeasuredSegment(told)
            self._rendition.segments.append(measured)
            if told.encrypted:
                measured.problem = ENCRYPTED
                continue
            try:
                head, data = self._measure(told, measured)
            except (FetchError, BoxError, UnreadableSegment) as error:
                measured.problem = str(error)
                measured.lacks_init = isinstance(error, NoInitSection)
                continue
            begun, self._begun = self._begun, True
            return data if begun else head + data
        return None

    def _measure(self, told: SegmentRef, measured: MeasuredSegment) -> tuple[bytes, bytes]:
        head, tracks = self._inits(told.init) if told.init else (b"", ())
        data = self._fetcher.segment(told.ref)
        measured.size_bytes = len(data)
        pieces = measure_fragments(data, tracks) if tracks else _without_init(head, data)
        for piece in pieces:
            if piece.format.kind == "video":
                self.promised.extend(piece.times)
        measured.pieces = tuple(replace(piece, times=()) for piece in pieces)
        return head, data


def _without_init(head: bytes, data: bytes) -> tuple[Piece, ...]:
    """Transport streams and packed audio need no init; an MP4 that begins with its own `moov` can be measured."""
    if data[4:8] in (b"ftyp", b"moov"):
        return measure_fragments(data, parse_tracks(data))
    if data[4:8] in (b"styp", b"moof", b"sidx"):
        raise NoInitSection("it is a fragment of an MP4 whose init section is not given (EXT-X-MAP)")
    return measure_demuxed(head + data)
