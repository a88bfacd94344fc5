"""How each encoder is told to make the same thing: closed GOPs of `gop` frames at a bounded rate.

Each function is (rung, GOP in the rung's frames, x264 preset, threads) → ffmpeg output options, without leading dashes.
Names and meanings: `ffmpeg -h encoder=NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.bus.messages import Rung

Options = dict[str, str | int]

# x264's presets → NVENC's p1 (fastest) to p7, whose slower ones still outrun decoding; and SVT-AV1's 9 to 0, as it says
# of those from 10 on that what they make has visible faults.
_NVENC_PRESETS: Final[Mapping[str, str]] = {
    "ultrafast": "p1", "superfast": "p2", "veryfast": "p4", "faster": "p4", "fast": "p5", "medium": "p5",
    "slow": "p6", "slower": "p7", "veryslow": "p7", "placebo": "p7",
}  # fmt: skip
_SVT_PRESETS: Final[Mapping[str, int]] = {
    "ultrafast": 9, "superfast": 9, "veryfast": 8, "faster": 8, "fast": 7, "medium": 6,
    "slow": 5, "slower": 4, "veryslow": 3, "placebo": 2,
}  # fmt: skip
# Apple plays HEVC in MP4 as `hvc1` alone: parameter sets in the init segment, none in the samples.
_APPLE_HEVC: Final[Options] = {"tag:v": "hvc1"}


def x264(rung: Rung, gop: int, preset: str, threads: int) -> Options:
    return {
        "c:v": "libx264",
        "preset": preset,
        "profile:v": rung.profile,
        # The output of x264 depends on the number of threads; a pinned one keeps every chunk reproducible.
        "threads": threads,
        # An IDR exactly every `gop` frames and nowhere else: rungs must be switchable at each segment.
        "g": gop,
        "keyint_min": gop,
        "sc_threshold": 0,
        **_rate(rung),
    }


def x265(rung: Rung, gop: int, preset: str, threads: int) -> Options:
    settings = {
        # The same grid: neither scene cuts nor keyframes that later pictures reach across.
        "keyint": gop, "min-keyint": gop, "scenecut": 0, "open-gop": 0,
        # Its output depends on how many frames it works on at a time; and one process must not take all cores.
        "frame-threads": threads, "pools": threads,
        # No text on the encoder in the init segment, nothing on stderr but errors.
        "info": 0, "log-level": "error",
    }  # fmt: skip
    return {
        "c:v": "libx265",
        "preset": preset,
        **_APPLE_HEVC,
        "x265-params": ":".join(f"{name}={value}" for name, value in settings.items()),
        **_rate(rung),
    }


def svt_av1(rung: Rung, gop: int, preset: str, threads: int) -> Options:
    settings = {
        # Variable rate: SVT-AV1 takes no peak with it, so `maxrate` is left out; the buffer bounds it.
        "rc": 1,
        # Keyframes that nothing reaches across, none at scene cuts.
        "irefresh-type": 2, "scd": 0,
        # As many threads as asked for, not as many as there are cores.
        "lp": threads,
    }  # fmt: skip
    rate = _rate(rung)
    del rate["maxrate"]
    return {
        "c:v": "libsvtav1",
        "preset": _SVT_PRESETS.get(preset, 8),
        "g": gop,
        "svtav1-params": ":".join(f"{name}={value}" for name, value in settings.items()),
        **rate,
    }


def h264_nvenc(rung: Rung, gop: int, preset: str, _threads: int) -> Options:
    # H.264's baseline has no B-pictures; all generations of NVENC make them for the others.
    return {"c:v": "h264_nvenc", "profile:v": rung.profile, **_nvenc(rung, gop, preset, bf=_b_frames(rung))}


def hevc_nvenc(rung: Rung, gop: int, preset: str, _threads: int) -> Options:
    # B-pictures of HEVC came with Turing; without them every card makes the same structure.
    return {"c:v": "hevc_nvenc", "profile:v": "main", **_APPLE_HEVC, **_nvenc(rung, gop, preset, bf=0)}


def av1_nvenc(rung: Rung, gop: int, preset: str, _threads: int) -> Options:
    return {"c:v": "av1_nvenc", **_nvenc(rung, gop, preset, bf=0)}


def h264_vaapi(rung: Rung, gop: int, _preset: str, _threads: int) -> Options:
    # VAAPI names the one form of baseline that is played.
    profile = "constrained_baseline" if rung.profile == "baseline" else rung.profile
    return {"c:v": "h264_vaapi", "profile:v": profile, **_vaapi(rung, gop)}


def hevc_vaapi(rung: Rung, gop: int, _preset: str, _threads: int) -> Options:
    return {"c:v": "hevc_vaapi", "profile:v": "main", **_APPLE_HEVC, **_vaapi(rung, gop)}


def av1_vaapi(rung: Rung, gop: int, _preset: str, _threads: int) -> Options:
    return {"c:v": "av1_vaapi", "profile:v": "main", **_vaapi(rung, gop)}


def _rate(rung: Rung) -> Options:
    """Average rate with a bounded peak: Apple asks for peaks under twice the average."""
    return {"b:v": f"{rung.video_kbps}k", "maxrate": f"{rung.max_kbps}k", "bufsize": f"{rung.buffer_kbits}k"}


def _b_frames(rung: Rung) -> int:
    return 0 if rung.profile == "baseline" else 2


def _nvenc(rung: Rung, gop: int, preset: str, *, bf: int) -> Options:
    return {
        "preset": _NVENC_PRESETS.get(preset, "p4"),
        # For files, not for calls: it may reorder and look at more than one picture.
        "tune": "hq",
        "rc": "vbr",
        "g": gop,
        # A keyframe must be one that a player can start at, and there are none between: NVENC ignores `keyint_min`.
        "forced-idr": 1,
        "no-scenecut": 1,
        # The same parameter sets on every generation of cards: what is left to the card differs between them.
        "bf": bf,
        "b_ref_mode": "disabled",
        **_rate(rung),
    }


def _vaapi(rung: Rung, gop: int) -> Options:
    return {
        "rc_mode": "VBR",
        "g": gop,
        # Every intra picture is one to start at.
        "idr_interval": 0,
        # AMD's older drivers have no B-pictures and leave them out by themselves: then the parameter sets would differ.
        "bf": 0,
        **_rate(rung),
    }
