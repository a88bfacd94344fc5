"""A recording → MediaInfo: streams, exact frame rate, extent, keyframes, orientation, colour. Source: PyAV (libav*)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from control.bus.messages import AudioTrack, MediaInfo, Note, VideoTrack
from control.bus.work import Work
from control.errors import (
    RecordingMissing,
    RecordingNotMedia,
    RecordingTooLarge,
    RecordingWithoutVideo,
)
from control.settings import MediaSettings
from media_worker.scan import AudioScan, Scan, scan
from media_worker.source import open_options, refuse_disguise, what_is_missing
from media_worker.timeline import find_jumps, find_rate, thin

_KEYFRAMES_APART_SECONDS: Final = Fraction(1, 2)
_HDR_TRANSFERS: Final = {16, 18}  # SMPTE ST 2084 (PQ), ARIB STD-B67 (HLG): ITU-T H.273, table 3
_OPEN_TIMEOUT_SECONDS: Final = 30.0
_LOST_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Probe:
    """A recording's facts, and whether it must be rewritten before it can be entered at a time."""

    info: MediaInfo
    jumps: int
    """Places where the clock jumps; more than none needs `media_worker.rewrite`."""
    seekable: bool
    """False where every seek would read the file from its start (no index)."""


def probe(source: str, address: str, settings: MediaSettings, work: Work) -> Probe:
    """Read every fact of the recording at `address` (see `media_worker.source`).

    Raises InputError's children: RecordingMissing, RecordingNotMedia, RecordingWithoutVideo, RecordingRefused,
    RecordingTooLarge.
    """
    with open_recording(source, address) as container:
        video = pick_video(container, source)
        _check_size(video, source, settings)
        audio = list(container.streams.audio)
        scanned = scan(container, video, audio, work)
        size_bytes = container.size
        # The length of a stream without a header is libavformat's guess, from what we are about to read ourselves.
        declared = 0.0 if container.format.name in ("mpegts", "mpeg") else (container.duration or 0) / 1_000_000
        if not len(scanned.pts) or not scanned.keyframes:
            raise RecordingWithoutVideo(source=source)
        jumps = len(find_jumps(scanned.dts, _tick(video)))
        picture = _look(container, video, scanned)
        if picture is None:
            raise RecordingWithoutVideo(source=source)
        track = _video_track(video, scanned, picture)
        tracks = tuple(
            _audio_track(stream, scanned.audio[stream.index])
            for stream in audio
            if scanned.audio[stream.index].start is not None and _is_decodable(stream)
        )
        duration = float((track.end_pts - track.origin_pts) * track.time_base)
        if duration > settings.max_duration_seconds and not jumps:
            raise RecordingTooLarge(
                source=source, reason=f"it is {duration:.0f} s long, {settings.max_duration_seconds:.0f} s at most"
            )
        info = MediaInfo(
            source=source,
            container=container.format.name,
            size_bytes=size_bytes,
            duration_seconds=duration,
            video=track,
            audio=tracks,
            notes=tuple(_notes(track, tracks, scanned, declared, jumps)),
        )
        return Probe(info, jumps, _has_index(source, address, container, track))


def open_recording(source: str, address: str) -> InputContainer:
    """Open for reading, restricted to the address's own protocol and to recordings' formats."""
    try:
        refuse_disguise(source, address)
        return av.open(
            address,
            mode="r",
            options=open_options(address),
            timeout=_OPEN_TIMEOUT_SECONDS,
            metadata_errors="replace",
        )
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise RecordingMissing(source=source) from error
    except (FFmpegError, ValueError) as error:
        reason = what_is_missing(address) or getattr(error, "strerror", None) or str(error)
        raise RecordingNotMedia(source=source, reason=reason) from error


def pick_video(container: InputContainer, source: str) -> VideoStream:
    """The video that is the programme: not a cover picture; the default one first, then the largest."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
        and stream.codec_context is not None
    ]
    if not streams:
        raise RecordingWithoutVideo(source=source)
    return max(streams, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))


def _check_size(video: VideoStream, source: str, settings: MediaSettings) -> None:
    pixels = video.width * video.height
    if pixels > settings.max_pixels:
        raise RecordingTooLarge(
            source=source, reason=f"{video.width} × {video.height} pixels, {settings.max_pixels} at most"
        )


def _look(container: InputContainer, video: VideoStream, scanned: Scan) -> list[VideoFrame] | None:
    """A few decoded frames from the start, a third and two thirds; None where nothing decodes."""
    frames: list[VideoFrame] = []
    keys = scanned.keyframes
    for time in sorted({keys[0], keys[len(keys) // 3], keys[2 * len(keys) // 3]}):
        try:
            container.seek(time, stream=video, backward=True)
            for number, frame in enumerate(container.decode(video)):
                frames.append(frame)
                if number == 3:
                    break
        except FFmpegError:
            continue  # one spot may be damaged; the others decide
    return frames or None


def _video_track(video: VideoStream, scanned: Scan, frames: list[VideoFrame]) -> VideoTrack:
    tick = _tick(video)
    first = frames[0]
    origin = min(scanned.keyframes)
    shown = scanned.pts[scanned.pts >= origin]
    rate = find_rate(shown, tick, video.guessed_rate)
    last = int(shown.max())
    length = round(1 / rate.rate / tick)
    rotation = round(-first.rotation / 90) * 90 % 360
    aspect = video.sample_aspect_ratio or Fraction(1)
    width, height = _display_size(first.width, first.height, aspect, rotation)
    context = video.codec_context
    return VideoTrack(
        index=video.index,
        codec=context.codec.canonical_name,
        profile=video.profile,
        coded_width=first.width,
        coded_height=first.height,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect=aspect,
        frame_rate=rate.rate,
        variable_frame_rate=rate.variable,
        interlaced=sum(frame.interlaced_frame for frame in frames) * 2 > len(frames),
        bit_depth=max((component.bits for component in first.format.components), default=8),
        pixel_format=first.format.name,
        hdr=int(first.color_trc) in _HDR_TRANSFERS,
        color_space=str(int(first.colorspace)),
        color_primaries=str(int(first.color_primaries)),
        color_transfer=str(int(first.color_trc)),
        color_range=str(int(first.color_range)),
        time_base=tick,
        origin_pts=origin,
        end_pts=last + max(length, 1),
        frames=len(np.unique(shown)),
        keyframes=thin(scanned.keyframes, int(_KEYFRAMES_APART_SECONDS / tick)),
    )


def _display_size(width: int, height: int, aspect: Fraction, rotation: int) -> tuple[int, int]:
    """Square pixels, never fewer than decoded: the shorter way is stretched. Then turned upright."""
    if aspect > 1:
        width = round(width * aspect)
    elif 0 < aspect < 1:
        height = round(height / aspect)
    return (height, width) if rotation in (90, 270) else (width, height)


def _is_decodable(stream: av.AudioStream) -> bool:
    """Whether its packets ever said what they hold."""
    context = stream.codec_context
    return context is not None and context.sample_rate > 0 and context.channels > 0


def _audio_track(stream: av.AudioStream, scanned: AudioScan) -> AudioTrack:
    context = stream.codec_context
    assert scanned.start is not None  # noqa: S101  # the caller's filter
    return AudioTrack(
        index=stream.index,
        codec=context.codec.canonical_name,
        profile=stream.profile,
        channels=context.channels,
        sample_rate=context.sample_rate,
        language=stream.language if stream.language != "und" else None,
        title=stream.metadata.get("title"),
        start_seconds=float(scanned.start * scanned.tick),
        end_seconds=float(scanned.end * scanned.tick),
        has_gaps=scanned.gaps > 0,
    )


def _notes(
    video: VideoTrack, audio: tuple[AudioTrack, ...], scanned: Scan, declared_seconds: float, jumps: int
) -> list[Note]:
    notes = []
    origin, end = float(video.origin_pts * video.time_base), float(video.end_pts * video.time_base)
    length = end - origin
    # Some containers declare the length, others the time of the end.
    lost = declared_seconds - max([length, end, *(track.end_seconds - min(origin, 0) for track in audio)])
    if scanned.broke_off or (lost > _LOST_SECONDS and not jumps):
        missing = f", {lost:.1f} s of the declared {declared_seconds:.1f} s are missing" if lost > 0 else ""
        why = f" ({scanned.broke_off})" if scanned.broke_off else ""
        detail = f"the recording breaks off at {length:.1f} s{why}{missing}"
        notes.append(Note(code="recording-truncated", detail=detail))
    if scanned.corrupt:
        notes.append(Note(code="recording-corrupt", detail=f"frames marked corrupt: {scanned.corrupt}"))
    early = float((video.origin_pts - int(scanned.pts.min())) * video.time_base)
    if early > 0 and int((scanned.pts < video.origin_pts).sum()) > 0:
        notes.append(Note(code="video-starts-late", detail=f"the first {early:.2f} s cannot be decoded: no keyframe"))
    for track in audio:
        beyond = track.end_seconds - end
        if beyond > _LOST_SECONDS and not jumps:
            detail = f"audio track {track.index} goes on {beyond:.1f} s after the video"
            notes.append(Note(code="audio-cut", detail=detail))
    if jumps:
        notes.append(Note(code="clock-jumped", detail=f"timestamps jump at {jumps} places: the breaks are closed up"))
    return notes


def _has_index(source: str, address: str, container: InputContainer, track: VideoTrack) -> bool:
    """Whether a seek goes straight to its place: by an index, or (MPEG-TS, MPEG-PS) by bisection."""
    # FLV and a Matroska file that was cut off have none; libavformat then reads from the start to the place.
    if container.format.name == "flv":
        return False
    if not container.format.name.startswith("matroska"):
        return True
    # Reading the file has made an index of what was read; the file's own, to its end, is there at the first seek.
    with open_recording(source, address) as fresh:
        stream = fresh.streams[track.index]
        fresh.seek(0, stream=stream)
        last = max((entry.timestamp for entry in stream.index_entries), default=0)
    return (track.keyframes[-1] - last) * 20 <= track.end_pts - track.origin_pts


def _tick(video: VideoStream) -> Fraction:
    return video.time_base or Fraction(1, 90000)
