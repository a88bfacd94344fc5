"""The init segment: which tracks there are and how each is coded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from media_worker.boxes.sample_entry import SampleEntry, read_sample_entry
from media_worker.boxes.structure import Box, BoxError, Bytes, Fields, children, find, iter_boxes, need

_AFTER_INIT = frozenset({"moof", "styp", "sidx", "emsg", "prft", "mdat"})


@dataclass(frozen=True, slots=True)
class InitInfo:
    """What an init segment says of one track."""

    size: int
    """Bytes up to the first fragment (or the end of the data)."""
    track_id: int
    timescale: int
    handler: str
    """`vide` or `soun`."""
    entry: SampleEntry
    default_sample_duration: int = 0
    default_sample_size: int = 0
    default_sample_flags: int = 0
    edit_media_time: int | None = None
    """Media time the first edit that is not empty starts at; None without an edit list."""
    edit_delay_seconds: Fraction = Fraction(0)
    """Length of the empty edits before it."""

    @property
    def codecs(self) -> str:
        """RFC 6381 string."""
        return self.entry.codecs

    @property
    def width(self) -> int:
        return self.entry.width

    @property
    def height(self) -> int:
        return self.entry.height

    @property
    def channels(self) -> int:
        return self.entry.channels

    @property
    def sample_rate(self) -> int:
        return self.entry.sample_rate

    @property
    def nal_length_size(self) -> int:
        """Bytes of a NAL unit's length prefix; 0 where the codec has no NAL units."""
        return self.entry.nal_length_size

    @property
    def sps(self) -> tuple[bytes, ...]:
        return self.entry.sps

    @property
    def pps(self) -> tuple[bytes, ...]:
        return self.entry.pps


def parse_init(data: Bytes) -> InitInfo:
    """The single audio or video track of an init segment (or of a file that starts with one).

    Raises BoxError where it has no such track, or several.
    """
    tracks = parse_tracks(data)
    if len(tracks) != 1:
        raise BoxError(f"the init segment has {len(tracks)} audio and video tracks, not one")
    return tracks[0]


def parse_tracks(data: Bytes) -> tuple[InitInfo, ...]:
    """Every audio and video track of an init segment. Raises BoxError where there is no `moov`."""
    moov, size = None, 0
    for box in iter_boxes(data, truncated=True):
        if box.type in _AFTER_INIT:
            break
        moov, size = (box if box.type == "moov" else moov), box.end
    if moov is None:
        raise BoxError("there is no moov box before the first fragment")
    movie = Fields(data, need(data, moov, "mvhd"))
    version, _ = movie.full()
    movie.at += 16 if version else 8
    movie_timescale = movie.u(4)
    defaults = dict(_track_defaults(data, moov))
    tracks = (
        _track(data, trak, size, movie_timescale, defaults) for trak in children(data, moov) if trak.type == "trak"
    )
    return tuple(track for track in tracks if track is not None)


def _track_defaults(data: Bytes, moov: Box) -> Iterator[tuple[int, tuple[int, int, int]]]:
    extends = find(data, moov, "mvex")
    for box in children(data, extends) if extends else ():
        if box.type == "trex":
            fields = Fields(data, box)
            fields.full()
            track_id, _, duration, size, flags = (fields.u(4) for _ in range(5))
            yield track_id, (duration, size, flags)


def _track(
    data: Bytes, trak: Box, size: int, movie_timescale: int, defaults: dict[int, tuple[int, int, int]]
) -> InitInfo | None:
    handler = Fields(data, need(data, trak, "mdia", "hdlr"))
    handler.at += 8
    kind = handler.u(4).to_bytes(4, "big").decode("latin-1")
    if kind not in ("vide", "soun"):
        return None
    header = Fields(data, need(data, trak, "tkhd"))
    version, _ = header.full()
    header.at += 16 if version else 8
    track_id = header.u(4)
    media = Fields(data, need(data, trak, "mdia", "mdhd"))
    version, _ = media.full()
    media.at += 16 if version else 8
    timescale = media.u(4)
    if timescale == 0:
        raise BoxError(f"track {track_id} has a timescale of 0")
    descriptions = need(data, trak, "mdia", "minf", "stbl", "stsd")
    entry = next(children(data, descriptions, skip=8), None)
    if entry is None:
        raise BoxError(f"track {track_id} has no sample description")
    try:
        described = read_sample_entry(entry.type, bytes(data[entry.content : entry.end]), kind)
    except (IndexError, struct.error) as error:
        raise BoxError(f"the sample description {entry.type!r} at {entry.offset} is cut short") from error
    duration, sample_size, flags = defaults.get(track_id, (0, 0, 0))
    media_time, delay = _edits(data, trak)
    return InitInfo(
        size=size,
        track_id=track_id,
        timescale=timescale,
        handler=kind,
        entry=described,
        default_sample_duration=duration,
        default_sample_size=sample_size,
        default_sample_flags=flags,
        edit_media_time=media_time,
        edit_delay_seconds=Fraction(delay, movie_timescale or 1),
    )


def _edits(data: Bytes, trak: Box) -> tuple[int | None, int]:
    box = find(data, trak, "edts", "elst")
    if box is None:
        return None, 0
    fields = Fields(data, box)
    version, _ = fields.full()
    width = 8 if version else 4
    delay = 0
    for _ in range(fields.u(4)):
        duration, media_time = fields.u(width), fields.signed(width)
        fields.at += 4
        if media_time >= 0:
            return media_time, delay
        delay += duration
    return None, delay
