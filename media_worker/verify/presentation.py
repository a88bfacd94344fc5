"""Loads a master playlist and everything it names into plain data; the `m3u8` library does the parsing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite
from typing import Any
from urllib.parse import urljoin

import m3u8

from media_worker.verify.fetch import Fetcher, FetchError, Ref
from media_worker.verify.report import VerifyError

_WITHOUT_BANDWIDTH = re.compile(r"^(#EXT-X-(?:I-FRAME-)?STREAM-INF:)(?!(?:.*,)?\s*BANDWIDTH=)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """One segment as its playlist tells it."""

    where: str
    ref: Ref
    seconds: Fraction
    """EXTINF."""
    init: Ref | None
    discontinuity: bool
    encrypted: bool


@dataclass(frozen=True)
class MediaPlaylist:
    """A media or I-frame playlist."""

    where: str
    """Its address as the master playlist gives it."""
    type: str | None
    ended: bool
    independent: bool
    target_seconds: int | None
    iframes_only: bool
    segments: tuple[SegmentRef, ...]
    problem: str | None = None
    """Why it could not be read."""

    @property
    def seconds(self) -> Fraction:
        return sum((segment.seconds for segment in self.segments), Fraction(0))


@dataclass(frozen=True)
class Variant:
    """One EXT-X-STREAM-INF or EXT-X-I-FRAME-STREAM-INF."""

    playlist: MediaPlaylist
    bandwidth: int | None
    average_bandwidth: int | None
    codecs: tuple[str, ...]
    resolution: tuple[int, int] | None
    frame_rate: Fraction | None = None
    audio_group: str | None = None


@dataclass(frozen=True)
class AudioRendition:
    """One EXT-X-MEDIA of TYPE=AUDIO."""

    group: str
    name: str
    language: str | None
    playlist: MediaPlaylist | None
    """None where the audio is in the variants' own segments."""


@dataclass(frozen=True)
class Presentation:
    """All that the playlists say."""

    is_master: bool
    independent: bool
    variants: tuple[Variant, ...]
    iframes: tuple[Variant, ...]
    audio: tuple[AudioRendition, ...]
    problems: tuple[tuple[str, str], ...] = field(default=())
    """(where, message) of what the parser could not take."""

    def group(self, variant: Variant) -> tuple[AudioRendition, ...]:
        """The audio renditions that go with a variant."""
        return tuple(each for each in self.audio if each.group == variant.audio_group)


def load(url: str, fetcher: Fetcher) -> Presentation:
    """Read the playlist at `url` and all that it names. Raises VerifyError where it is no HLS playlist at all."""
    try:
        text = fetcher.playlist(url)
    except FetchError as error:
        raise VerifyError(str(error)) from error
    try:
        master = _parse(text)
        if not master.is_variant:
            alone = Variant(_media(master, url, url.rsplit("/", 1)[-1]), None, None, (), None)
            return Presentation(False, bool(master.is_independent_segments), (alone,), (), ())
    except FetchError as error:
        raise VerifyError(f"{url} is not an HLS playlist: {error}") from error
    loader = _Loader(url, fetcher)
    variants = tuple(_variant(each, each.stream_info, loader) for each in master.playlists)
    iframes = tuple(_variant(each, each.iframe_stream_info, loader) for each in master.iframe_playlists)
    audio = tuple(
        AudioRendition(
            str(media.group_id),
            str(media.name),
            media.language,
            loader(media.uri) if media.uri else None,
        )
        for media in master.media
        if media.type == "AUDIO"
    )
    return Presentation(True, bool(master.is_independent_segments), variants, iframes, audio)


class _Loader:
    """Reads media playlists, each address once."""

    def __init__(self, base: str, fetcher: Fetcher) -> None:
        self._base, self._fetcher = base, fetcher
        self._loaded: dict[str, MediaPlaylist] = {}

    def __call__(self, uri: str) -> MediaPlaylist:
        if uri not in self._loaded:
            self._loaded[uri] = self._load(uri)
        return self._loaded[uri]

    def _load(self, uri: str) -> MediaPlaylist:
        try:
            url = _join(self._base, uri)
            parsed = _parse(self._fetcher.playlist(url))
            if not parsed.is_variant:
                return _media(parsed, url, uri)
            problem = "it is a master playlist where a media playlist should be"
        except FetchError as error:
            problem = str(error)
        return MediaPlaylist(uri, None, False, False, None, False, (), problem=problem)


def _parse(text: str) -> Any:
    if not text.lstrip().startswith("#EXTM3U"):
        raise FetchError("it does not begin with #EXTM3U")
    try:
        # The library takes no variant without BANDWIDTH; 0 stands for "not said".
        return m3u8.loads(_WITHOUT_BANDWIDTH.sub(r"\1BANDWIDTH=0,", text))
    except Exception as error:  # the parser raises whatever a malformed attribute trips over
        raise FetchError(f"it cannot be parsed ({type(error).__name__}: {error})") from error


def _variant(entry: Any, info: Any, loader: _Loader) -> Variant:
    codecs = tuple(codec.strip() for codec in (info.codecs or "").split(",") if codec.strip())
    rate = getattr(info, "frame_rate", None)
    return Variant(
        playlist=loader(entry.uri),
        bandwidth=_whole(info.bandwidth),
        average_bandwidth=_whole(info.average_bandwidth),
        codecs=codecs,
        resolution=info.resolution,
        frame_rate=Fraction(str(rate)) if rate is not None and isfinite(rate) else None,
        audio_group=getattr(info, "audio", None),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _join(base: str, uri: str) -> str:
    try:
        return urljoin(base, uri)
    except ValueError as error:
        raise FetchError(f"{uri!r} is not an address: {error}") from None


def _seconds(value: float | None) -> Fraction:
    if value is None or not isfinite(value) or value < 0:
        raise FetchError(f"EXTINF {value} is not a duration")
    return Fraction(str(value))


def _media(parsed: Any, url: str, where: str) -> MediaPlaylist:
    return MediaPlaylist(
        where=where,
        type=(parsed.playlist_type or "").upper() or None,
        ended=bool(parsed.is_endlist),
        independent=bool(parsed.is_independent_segments),
        target_seconds=_whole(parsed.target_duration),
        iframes_only=bool(parsed.is_i_frames_only),
        segments=tuple(_segments(parsed, url, where)),
    )


def _segments(parsed: Any, url: str, where: str) -> Iterator[SegmentRef]:
    ends: dict[str, int] = {}
    for index, segment in enumerate(parsed.segments):
        address = _join(url, segment.uri or "")
        ref = _ref(address, segment.byterange, ends)
        section = segment.init_section
        init = _ref(_join(url, section.uri), section.byterange, {}) if section is not None and section.uri else None
        key = segment.key
        yield SegmentRef(
            where=f"{where} segment {index} ({segment.uri})",
            ref=ref,
            seconds=_seconds(segment.duration),
            init=init,
            discontinuity=bool(segment.discontinuity),
            encrypted=key is not None and bool(key.method) and key.method != "NONE",
        )


def _ref(address: str, byte_range: str | None, ends: dict[str, int]) -> Ref:
    """A range without an offset begins where the last of the same resource ended (RFC 8216 section 4.3.2.2)."""
    if not byte_range:
        return Ref(address)
    length, _, offset = byte_range.strip('"').partition("@")
    try:
        size = int(length)
        start = int(offset) if offset else ends.get(address, 0)
    except ValueError:
        raise FetchError(f"{byte_range!r} is not a byte range") from None
    ends[address] = start + size
    return Ref(address, start, size)
