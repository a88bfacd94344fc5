"""HLS text: media, I-frame and master playlists of a replay, whole or still growing. Pure.

Sources: RFC 8216 and its successor draft (rfc8216bis), Apple's HLS Authoring Specification for Apple Devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor

from control.bus.messages import AudioRendition, ChunkResult, Plan, Rung, Segment, Track
from pipelines.languages import bcp47

INIT = "init.mp4"
MEDIA_PLAYLIST = "playlist.m3u8"
IFRAME_PLAYLIST = "iframes.m3u8"
MASTER_PLAYLIST = "master.m3u8"

# The version that allows EXT-X-MAP in ordinary media playlists is 6; 7 is what fMP4 tools expect to read.
_VERSION = 7
_AUDIO_GROUP = "audio"
_TICKS_A_SECOND = 1_000_000
# Authoring specification 1.32: players begin with the first variant, which should be the 2,000 kbit/s one.
_FIRST_VARIANT_KBPS = 2000


# --- media playlists -----------------------------------------------------------------------------


def media_playlist(track: Track, *, complete: bool, target_seconds: int | None = None) -> str:
    """The playlist of a rendition: VOD when `complete`, else an EVENT that players come back to.

    `target_seconds` is `target_duration()` of all renditions of the replay, which must use the same (authoring
    specification 8.2); None takes this track's own. Raises ValueError for a track without segments.
    """
    times = _rounded(_seconds(track))
    lines = _head(track, times, complete, target_seconds)
    for segment, seconds in zip(track.segments, times, strict=True):
        lines += [f"#EXTINF:{float(seconds):.6f},", segment.name]
    return _text(lines, complete)


def iframe_playlist(track: Track, *, complete: bool) -> str:
    """The playlist of a rendition's IDR frames alone, for scrubbing. Raises ValueError where it has none."""
    frames = [(segment.name, frame) for segment in track.segments for frame in segment.iframes]
    times = _rounded(Fraction(frame.ticks, track.timescale) for _, frame in frames)
    lines = _head(track, times, complete)
    lines.insert(-1, "#EXT-X-I-FRAMES-ONLY")
    for (name, frame), seconds in zip(frames, times, strict=True):
        lines += [f"#EXTINF:{float(seconds):.6f},", f"#EXT-X-BYTERANGE:{frame.size_bytes}@{frame.offset}", name]
    return _text(lines, complete)


def target_duration(tracks: Iterable[Track]) -> int:
    """EXT-X-TARGETDURATION, in seconds, that fits every one of the tracks."""
    return max((_target(_seconds(track)) for track in tracks if track.segments), default=1)


def _head(track: Track, times: Sequence[Fraction], complete: bool, target_seconds: int | None = None) -> list[str]:
    if not times:
        raise ValueError(f"{track.name}: a playlist needs something to list")
    target = _target(times)
    if target_seconds is not None and target_seconds < target:
        raise ValueError(f"{track.name}: a target duration of {target_seconds} s is too short, it needs {target} s")
    return [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{target if target_seconds is None else target_seconds}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if complete else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{INIT}"',
    ]


def _text(lines: list[str], complete: bool) -> str:
    return "\n".join([*lines, "#EXT-X-ENDLIST"] if complete else lines) + "\n"


def _rounded(durations: Iterable[Fraction]) -> list[Fraction]:
    """Durations in whole microseconds whose running sum is never more than half of one from the truth."""
    rounded: list[Fraction] = []
    exact, told = Fraction(0), 0
    for duration in durations:
        exact += duration
        until = _nearest(exact * _TICKS_A_SECOND)
        rounded.append(Fraction(until - told, _TICKS_A_SECOND))
        told = until
    return rounded


def _nearest(value: Fraction) -> int:
    """Half goes up: Python's round() takes 6.5 to 6, and RFC 8216 then wants 7."""
    return floor(value + Fraction(1, 2))


def _target(times: Iterable[Fraction]) -> int:
    """EXT-X-TARGETDURATION: no EXTINF, rounded, is greater (RFC 8216 section 4.3.3.1); 0 is of no use to players."""
    return max(1, _nearest(max(times)))


# --- the master playlist -------------------------------------------------------------------------


def master_playlist(plan: Plan, video: Mapping[str, Track], audio: Mapping[str, Track]) -> str:
    """The master playlist of `plan`, bit rates measured from the segments of the tracks.

    `video` maps a rung's name, `audio` a rendition's name, to its segments; what is not in them is not listed yet.
    Raises ValueError without any video.
    """
    rungs = _starting_rung_first([rung for rung in plan.rungs if rung.name in video])
    if not rungs:
        raise ValueError("a master playlist needs at least one video track")
    renditions = [rendition for rendition in plan.audio if rendition.name in audio]
    sound = [audio[rendition.name] for rendition in renditions]
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines += _media_tags(renditions)
    target = target_duration([*(video[rung.name] for rung in rungs), *sound])
    for rung in rungs:
        attributes = _variant(rung, video[rung.name], sound, target)
        lines += [f"#EXT-X-STREAM-INF:{attributes}", f"{rung.name}/{MEDIA_PLAYLIST}"]
    lines += [f"#EXT-X-I-FRAME-STREAM-INF:{_iframe_variant(rung, video[rung.name])}" for rung in rungs]
    return "\n".join(lines) + "\n"


def _starting_rung_first(rungs: list[Rung]) -> list[Rung]:
    start = next((rung for rung in rungs if rung.video_kbps <= _FIRST_VARIANT_KBPS), None)
    return [start, *(rung for rung in rungs if rung is not start)] if start else rungs


def _variant(rung: Rung, track: Track, sound: Sequence[Track], target: int) -> str:
    # The largest sum any playable combination gives: rfc8216bis section 4.4.6.2.
    peak = peak_bit_rate(track, target) + max((peak_bit_rate(each, target) for each in sound), default=0)
    average = average_bit_rate(track) + max((average_bit_rate(each) for each in sound), default=0)
    codecs = dict.fromkeys([track.codecs, *(each.codecs for each in sound)])
    attributes = [
        f"BANDWIDTH={ceil(peak)}",
        f"AVERAGE-BANDWIDTH={ceil(average)}",
        f'CODECS="{",".join(codecs)}"',
        f"RESOLUTION={rung.width}x{rung.height}",
        f"FRAME-RATE={float(rung.frame_rate):.3f}",
        "VIDEO-RANGE=SDR",
        "CLOSED-CAPTIONS=NONE",
    ]
    return ",".join([*attributes, f'AUDIO="{_AUDIO_GROUP}"'] if sound else attributes)


def _iframe_variant(rung: Rung, track: Track) -> str:
    frames = [frame for segment in track.segments for frame in segment.iframes]
    pieces = [(frame.size_bytes, Fraction(frame.ticks, track.timescale)) for frame in frames]
    return ",".join(
        [
            f"BANDWIDTH={ceil(_peak(pieces))}",
            f"AVERAGE-BANDWIDTH={ceil(_average(pieces))}",
            f'CODECS="{track.codecs}"',
            f"RESOLUTION={rung.width}x{rung.height}",
            "VIDEO-RANGE=SDR",
            f'URI="{rung.name}/{IFRAME_PLAYLIST}"',
        ]
    )


def _media_tags(renditions: Sequence[AudioRendition]) -> Iterator[str]:
    """EXT-X-MEDIA of the audio group: names and automatically chosen languages are unique (RFC 8216 4.3.4.1.1)."""
    default = next((rendition for rendition in renditions if rendition.default), renditions[0] if renditions else None)
    names: set[str] = set()
    languages: set[str] = set()
    for rendition in sorted(renditions, key=lambda each: each is not default):
        language = bcp47(rendition.language)
        name = _unique(_quotable(rendition.title or "") or language or rendition.name, names)
        chosen = rendition is default or (language is not None and language not in languages)
        languages |= {language} if language else set()
        yield ",".join(
            [
                f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{_AUDIO_GROUP}"',
                f'NAME="{name}"',
                f'LANGUAGE="{language or "und"}"',  # required in every audio tag: authoring specification 8.10
                f"DEFAULT={'YES' if rendition is default else 'NO'}",
                f"AUTOSELECT={'YES' if chosen else 'NO'}",
                'CHANNELS="2"',
                f'URI="{rendition.name}/{MEDIA_PLAYLIST}"',
            ]
        )


def _quotable(text: str) -> str:
    """A quoted string holds no line break and no double quote, and has no way to escape them (RFC 8216 4.2)."""
    return " ".join(text.replace('"', "'").split())


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    taken.add(candidate)
    return candidate


# --- bit rates -----------------------------------------------------------------------------------


def average_bit_rate(track: Track) -> Fraction:
    """Bits a second of all segments over their duration (rfc8216bis section 4.1)."""
    return _average(_pieces(track))


def peak_bit_rate(track: Track, target_seconds: int | None = None) -> Fraction:
    """Largest bit rate of any run of segments that lasts 0.5 to 1.5 target durations (rfc8216bis section 4.1)."""
    return _peak(_pieces(track), target_seconds)


def _seconds(track: Track) -> Iterator[Fraction]:
    return (Fraction(segment.ticks, track.timescale) for segment in track.segments)


def _pieces(track: Track) -> list[tuple[int, Fraction]]:
    return [(segment.size_bytes, seconds) for segment, seconds in zip(track.segments, _seconds(track), strict=True)]


def _average(pieces: Sequence[tuple[int, Fraction]]) -> Fraction:
    seconds = sum((seconds for _, seconds in pieces), Fraction(0))
    return 8 * sum(size for size, _ in pieces) / seconds if seconds else Fraction(0)


def _peak(pieces: Sequence[tuple[int, Fraction]], target_seconds: int | None = None) -> Fraction:
    if not pieces:
        return Fraction(0)
    target = target_seconds or _target(seconds for _, seconds in pieces)
    largest = Fraction(0)
    for first in range(len(pieces)):
        size, lasts = 0, Fraction(0)
        for index in range(first, len(pieces)):
            size, lasts = size + pieces[index][0], lasts + pieces[index][1]
            if lasts > Fraction(3, 2) * target:
                break
            if lasts >= Fraction(1, 2) * target:
                largest = max(largest, 8 * size / lasts)
    # One lone segment under half a second makes no run that counts.
    return largest or _average(pieces)


# --- a replay that is still being made -----------------------------------------------------------


def finished_prefix(plan: Plan, results: Mapping[int, ChunkResult]) -> dict[str, Track]:
    """The segments that can be shown: of the chunks 0, 1, … up to the first that is not in `results`, a rung each.

    Empty while chunk 0 is missing. Raises ValueError, naming the chunk, where chunks do not fit each other.
    """
    done: list[ChunkResult] = []
    for chunk in sorted(plan.chunks, key=lambda each: each.index):
        if chunk.index not in results:
            break
        done.append(results[chunk.index])
    if not done:
        return {}
    by_rung = [{track.name: track for track in result.tracks} for result in done]
    tracks: dict[str, Track] = {}
    for rung in plan.rungs:
        for result, made in zip(done, by_rung, strict=True):
            if rung.name not in made:
                raise ValueError(f"chunk {result.index} has no {rung.name}")
        tracks[rung.name] = join_tracks([made[rung.name] for made in by_rung])
    return tracks


def join_tracks(tracks: Sequence[Track]) -> Track:
    """The tracks of chunks 0, 1, … of one rung as one.

    Raises ValueError, naming the chunk, where name, codecs, timescale or init segment differ from chunk 0's, or where a
    segment's name comes twice.
    """
    if not tracks:
        raise ValueError("there is no chunk to join")
    first = tracks[0]
    names: set[str] = set()
    for index, track in enumerate(tracks):
        for field in ("name", "codecs", "timescale", "init_sha256"):
            ours, theirs = getattr(first, field), getattr(track, field)
            if ours != theirs:
                raise ValueError(f"{first.name}: chunk {index} has {field} {theirs}, chunk 0 has {ours}")
        for segment in track.segments:
            if segment.name in names:
                raise ValueError(f"{first.name}: chunk {index} makes {segment.name} a second time")
            names.add(segment.name)
    return first.model_copy(
        update={
            "frames": sum(track.frames for track in tracks),
            "segments": tuple(segment for track in tracks for segment in track.segments),
        }
    )


def track_seconds(track: Track) -> Fraction:
    """How long the track's segments are together."""
    return Fraction(sum(segment.ticks for segment in track.segments), track.timescale)


def cut_audio(track: Track, video_seconds: Fraction) -> Track:
    """The audio that goes with the first `video_seconds` of video: its segments that begin before their end.

    `frames` stays that of the whole track.
    """
    shown: list[Segment] = []
    begins = Fraction(0)
    for segment in track.segments:
        if begins >= video_seconds:
            break
        shown.append(segment)
        begins += Fraction(segment.ticks, track.timescale)
    return track.model_copy(update={"segments": tuple(shown)})
