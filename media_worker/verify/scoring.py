"""ffmpeg arguments that compare a run of a rendition's frames with the source's, and what they wrote. Pure.

It shares nothing with what makes rungs: the frames to compare with are found in the source anew.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import ffmpeg

from control.bus.messages import VideoTrack
from media_worker.command import QUIET
from media_worker.source import open_options

# VMAF's default model is of a 1080p screen seen from three times its height; larger sources are brought to that.
_LARGEST_SHORT_SIDE: Final = 1080
# Of 8 bits: what libvmaf calls identical. Frames that are the same have no finite PSNR, and JSON no infinity.
_BEST_PSNR_DB: Final = 60.0
_PSNR_LINE: Final = re.compile(r"\bmse_y:(\S+)")
_SSIM_LINE: Final = re.compile(r"\bY:(\S+)")


@dataclass(frozen=True)
class Stretch:
    """So many frames of a rendition from `first_frame` on, a segment's."""

    first_frame: int
    frames: int
    rate: Fraction


@dataclass(frozen=True)
class Compared:
    """What the comparison of one stretch said, each value the mean of its frames."""

    frames: int
    mse: float
    """Mean squared error of luma."""
    ssim: float
    vmaf: float | None


def compared_size(video: VideoTrack) -> tuple[int, int]:
    """Width and height pictures are compared at: the source's, 1080 lines at most."""
    scale = min(Fraction(1), Fraction(_LARGEST_SHORT_SIDE, min(video.width, video.height)))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (video.width, video.height))
    return width, height


def score_command(
    ffmpeg_path: str,
    address: str,
    video: VideoTrack,
    segment: Path,
    stretch: Stretch,
    folder: Path,
    *,
    vmaf_threads: int,
) -> list[str]:
    """Compare `segment` (a file a decoder can start with) with what the source at `address` shows at that time.

    PSNR and SSIM are written into `folder`, and VMAF where `vmaf_threads` is not 0.
    """
    width, height = compared_size(video)
    shown = ffmpeg.input(str(segment), protocol_whitelist="file")["v:0"]
    reference, distorted = (
        # Paired by number: the clocks of the two were compared by other rules.
        picture.filter("settb", "1/1000")
        .filter("setpts", "N*20")
        .filter("scale", width, height, flags="bicubic", out_range="limited")
        .filter("format", pix_fmts="yuv420p")
        .filter("setsar", 1)
        for picture in (_frames_of_source(address, video, stretch), shown)
    )
    count = 3 if vmaf_threads else 2
    references = reference.filter_multi_output("split", count)
    # Each filter passes the first of its two pictures on.
    picture = ffmpeg.filter([distorted, references[0]], "psnr", stats_file=str(folder / "psnr"), shortest=1)
    picture = ffmpeg.filter([picture, references[1]], "ssim", stats_file=str(folder / "ssim"), shortest=1)
    if vmaf_threads:
        options = {"log_path": str(folder / "vmaf"), "log_fmt": "json", "n_threads": vmaf_threads, "shortest": 1}
        picture = ffmpeg.filter([picture, references[2]], "libvmaf", **options)
    graph = ffmpeg.output(picture, "-", f="null", fps_mode="passthrough").global_args(
        *QUIET,
        # Absolute times, whatever the place the source is entered at.
        "-copyts",
    )
    return [str(argument) for argument in graph.compile(cmd=ffmpeg_path)]


def _frames_of_source(address: str, video: VideoTrack, stretch: Stretch) -> Any:
    options: dict[str, Any] = {**open_options(address), "max_error_rate": 1, "reinit_filter": 0}
    entry = _entry(video, video.origin_pts + math.floor(stretch.first_frame / stretch.rate / video.time_base))
    if entry is not None:
        # To the microsecond, rounded up, and from that keyframe on.
        microseconds = math.ceil(entry * video.time_base * 1_000_000)
        options |= {"seek_timestamp": 1, "ss": f"{microseconds / 1_000_000:.6f}", "noaccurate_seek": None}
    origin = -video.origin_pts
    picture = ffmpeg.input(address, **options)[str(video.index)].filter("setpts", f"PTS{origin:+d}")
    if video.interlaced:
        picture = picture.filter("bwdif", mode="send_frame", deint="all")
    return (
        picture.filter("fps", fps=str(stretch.rate), round="near", eof_action="pass")
        .filter("tpad", stop=-1, stop_mode="clone")
        .filter("trim", start_pts=stretch.first_frame, end_pts=stretch.first_frame + stretch.frames)
    )


def _entry(video: VideoTrack, pts: int) -> int | None:
    """Two keyframes before the one shown at or before `pts`: where a seek lands a little off, that is still early
    enough. None is the start."""
    before = [time for time in video.keyframes if time <= pts]
    return before[-3] if len(before) > 3 else None


def read_scores(folder: Path, *, vmaf: bool) -> Compared:
    """What `score_command` wrote. Raises ValueError where a file says nothing."""
    errors = _values(folder / "psnr", _PSNR_LINE)
    likeness = _values(folder / "ssim", _SSIM_LINE)
    if not errors or len(errors) != len(likeness):
        raise ValueError(f"of {len(errors)} frames PSNR is known, of {len(likeness)} SSIM")
    felt = None
    if vmaf:
        felt = float(json.loads((folder / "vmaf").read_text())["pooled_metrics"]["vmaf"]["mean"])
    return Compared(len(errors), sum(errors) / len(errors), sum(likeness) / len(likeness), felt)


def _values(path: Path, pattern: re.Pattern[str]) -> list[float]:
    return [float(found[1]) for line in path.read_text().splitlines() if (found := pattern.search(line))]


def psnr_db(stretches: Sequence[Compared]) -> float:
    """Peak signal-to-noise ratio of 8-bit luma over all frames: of the mean error, not the mean of ratios."""
    frames = sum(each.frames for each in stretches)
    mse = sum(each.mse * each.frames for each in stretches) / frames
    return _BEST_PSNR_DB if mse <= 0 else min(_BEST_PSNR_DB, 10 * math.log10(255**2 / mse))


def mean(values: Sequence[float], stretches: Sequence[Compared]) -> float:
    """Over all frames."""
    frames = [each.frames for each in stretches]
    return sum(value * count for value, count in zip(values, frames, strict=True)) / sum(frames)
