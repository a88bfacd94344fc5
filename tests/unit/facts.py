"""Facts of recordings for the unit tests of planning: what a probe would say, without a file."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from control.bus.messages import AudioTrack, MediaInfo, VideoTrack


def video(
    width: int = 1280,
    height: int = 720,
    rate: Fraction | int = 30,
    seconds: Fraction | float = 60,
    keyframe_seconds: float = 2,
    **changes: Any,
) -> VideoTrack:
    tick = Fraction(1, 90000)
    end = round(Fraction(seconds) / tick)
    step = round(Fraction(keyframe_seconds) / tick)
    start = changes.get("origin_pts", 0)
    facts: dict[str, Any] = {
        "index": 0,
        "codec": "h264",
        "coded_width": width,
        "coded_height": height,
        "width": width,
        "height": height,
        "frame_rate": Fraction(rate),
        "pixel_format": "yuv420p",
        "time_base": tick,
        "origin_pts": 0,
        "end_pts": start + end,
        "frames": round(Fraction(seconds) * rate),
        "keyframes": tuple(range(start, start + end, step)),
    }
    return VideoTrack.model_validate(facts | changes)


def audio(**changes: Any) -> AudioTrack:
    facts: dict[str, Any] = {
        "index": 1,
        "codec": "aac",
        "profile": "LC",
        "channels": 2,
        "sample_rate": 48000,
        "start_seconds": 0.0,
        "end_seconds": 60.0,
    }
    return AudioTrack.model_validate(facts | changes)


def info(track: VideoTrack | None = None, *tracks: AudioTrack, container: str = "mov,mp4") -> MediaInfo:
    track = track or video()
    length = float((track.end_pts - track.origin_pts) * track.time_base)
    return MediaInfo(
        source="recording.mp4",
        container=container,
        size_bytes=1,
        duration_seconds=length,
        video=track,
        audio=tracks,
    )
