"""How many bits a recording needs: short encodes at constant quality, a few frames each, spread over it.

A still room with a talking head takes a tenth of what a catwalk takes at the same quality. One process enters the
recording at a few of its keyframes, and encodes what comes a little later at two sizes; the line through the two says
what any size needs (`pipelines.content`). The same recording and ffmpeg give the same figures, whatever else the
machine does.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import ffmpeg
import numpy as np
from av.error import FFmpegError

from control.bus.messages import Complexity, ComplexityPoint, VideoTrack
from control.bus.work import Work
from control.errors import DeadlineExceeded, EncoderFailed
from control.settings import MediaSettings
from media_worker.command import QUIET
from media_worker.ffmpeg import ffmpeg_path
from media_worker.runner import run
from media_worker.scratch import scratch
from media_worker.source import open_options

log = logging.getLogger("afterlive.media")

# Where x264 stops gaining: three times the bits are one to four points of VMAF more (make bench BENCH_ARGS=--quality).
CRF: Final = 19
_PRESET: Final = "veryfast"
FRAMES_A_PLACE: Final = 8
_SECONDS_A_PLACE: Final = 15
_FEWEST_PLACES: Final = 4
_MOST_PLACES: Final = 12
_SHORTEST_SECONDS: Final = 10  # of a shorter recording there is nothing to save
_SMALLEST: Final = 234  # the smallest rung of Apple's table: below it there is nothing to choose
_LARGEST_SHORT_SIDE: Final = 720  # what costs more tells little more
_LATEST_SECONDS: Final = Fraction(1)  # what lies between the keyframe and the place is decoded in vain
_GOP_SECONDS: Final = 2
_MOST_FPS: Final = 60
_LIMIT_SECONDS: Final = 60.0  # it takes about one; whatever makes it slower must not hold the replay up
_BUSY: Final = 0.75  # quantile


@dataclass(frozen=True)
class Place:
    """Where a few frames are taken from."""

    entry_pts: int
    """The keyframe the recording is entered at."""
    skip: int
    """Frames after it: the first of a scene say little of the others."""


def measure_complexity(address: str, video: VideoTrack, settings: MediaSettings, work: Work) -> Complexity | None:
    """The complexity of the recording at `address`; None where it cannot be told, which stops nothing.

    HDR is not measured: it is tone-mapped on the way to a rung. Raises Cancelled and DeadlineExceeded through `work`.
    """
    seconds = float((video.end_pts - video.origin_pts) * video.time_base)
    if video.hdr or seconds < _SHORTEST_SECONDS or min(video.width, video.height) < _SMALLEST:
        return None
    places = choose_places(video, seconds)
    sizes = sample_sizes(video)
    try:
        with scratch(settings) as folder:
            files = [folder / f"{short}.mp4" for short, _, _ in sizes]
            command = sample_command(ffmpeg_path(settings), address, video, places, files)
            run(command, work.within(_LIMIT_SECONDS), total_frames=len(places) * FRAMES_A_PLACE)
            sampled = [_frame_bytes(file) for file in files]
    except (EncoderFailed, FFmpegError) as error:
        log.warning("complexity of %s cannot be measured: %s", video.codec, error)
        return None
    except DeadlineExceeded:
        work.check()  # the task's own end is raised
        log.warning("complexity was not measured within %.0f s", _LIMIT_SECONDS)
        return None
    if any(len(found) != len(places) * FRAMES_A_PLACE for found in sampled):
        log.warning("complexity cannot be measured: some of the places looked at have no pictures")
        return None
    rate = min(video.frame_rate, Fraction(_MOST_FPS))
    return Complexity(
        crf=CRF,
        frame_rate=rate,
        places=len(places),
        points=tuple(_point(short, found, rate) for (short, _, _), found in zip(sizes, sampled, strict=True)),
    )


def choose_places(video: VideoTrack, seconds: float) -> list[Place]:
    """The middles of so many equal parts of the recording, or as near behind the keyframe before as may be decoded."""
    count = max(_FEWEST_PLACES, min(_MOST_PLACES, round(seconds / _SECONDS_A_PLACE)))
    places: list[Place] = []
    for number in range(count):
        middle = video.origin_pts + (video.end_pts - video.origin_pts) * (2 * number + 1) // (2 * count)
        entry = video.keyframes[max(0, bisect_right(video.keyframes, middle) - 1)]
        # Where keyframes are rare, those that share one are decoded in one go, and lie apart.
        sharing = sum(place.entry_pts == entry for place in places)
        later = min(_LATEST_SECONDS * (1 + sharing), max(0, middle - entry) * video.time_base)
        places.append(Place(entry, round(later * video.frame_rate)))
    return list(dict.fromkeys(places))


def sample_sizes(video: VideoTrack) -> list[tuple[int, int, int]]:
    """Two sizes as (short side, width, height): the source's own, 720 lines at most, and half of that."""
    short = min(video.width, video.height)
    large = min(short, _LARGEST_SHORT_SIDE)
    return [_sized(video, side) for side in (large, large // 2)]


def _sized(video: VideoTrack, short: int) -> tuple[int, int, int]:
    scale = Fraction(short, min(video.width, video.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (video.width, video.height))
    return min(width, height), width, height


def sample_command(
    ffmpeg_path: str, address: str, video: VideoTrack, places: Sequence[Place], files: Sequence[Path]
) -> list[str]:
    """ffmpeg arguments: from each place a few frames, one after the other, encoded at both sizes. Pure."""
    (_, width, height), (_, small_width, small_height) = sample_sizes(video)
    pictures = [
        picture
        for entry in dict.fromkeys(place.entry_pts for place in places)
        for picture in _windows(address, video, [place for place in places if place.entry_pts == entry], width, height)
    ]
    both = ffmpeg.concat(*pictures, v=1, a=0).filter_multi_output("split")
    small = both[1].filter("scale", small_width, small_height, flags="bicubic")
    encode = {
        "c:v": "libx264",
        "preset": _PRESET,
        "crf": CRF,
        # Each place is a GOP of its own, so that a keyframe and what follows it can be told apart.
        "g": FRAMES_A_PLACE,
        "keyint_min": FRAMES_A_PLACE,
        "sc_threshold": 0,
        # x264's output depends on the number of threads: pinned, the measure is the same everywhere.
        "threads": 1,
        "fps_mode": "passthrough",
        "f": "mp4",
    }
    outputs = [
        ffmpeg.output(picture, str(file), **encode) for picture, file in zip((both[0], small), files, strict=True)
    ]
    graph = ffmpeg.merge_outputs(*outputs).global_args(*QUIET, "-filter_complex_threads", "1")
    return [str(argument) for argument in graph.compile(cmd=ffmpeg_path)]


def _windows(address: str, video: VideoTrack, places: Sequence[Place], width: int, height: int) -> list[Any]:
    """The frames of places that have the same entry."""
    microseconds = places[0].entry_pts * video.time_base * 1_000_000
    options = {
        **open_options(address),
        "threads": 1,
        "max_error_rate": 1,
        "reinit_filter": 0,
        # From the keyframe on; frames are counted from there.
        "seek_timestamp": 1,
        "ss": f"{-(-microseconds.numerator // microseconds.denominator) / 1_000_000:.6f}",
        "noaccurate_seek": None,
    }
    picture = ffmpeg.input(address, **options)[str(video.index)]
    if video.interlaced:
        picture = picture.filter("bwdif", mode="send_frame", deint="all")
    # What breaks off or ends early stands still: every place has its frames.
    picture = picture.filter("tpad", stop=-1, stop_mode="clone")
    taps = picture.filter_multi_output("split", len(places)) if len(places) > 1 else [picture]
    return [
        taps[number]
        .filter("trim", start_frame=place.skip, end_frame=place.skip + FRAMES_A_PLACE)
        # When they were shown does not matter.
        .filter("settb", "1/1000")
        .filter("setpts", "N*20")
        .filter("scale", width, height, flags="bicubic", out_range="limited")
        .filter("format", pix_fmts="yuv420p")
        .filter("setsar", 1)
        for number, place in enumerate(places)
    ]


def _frame_bytes(file: Path) -> list[int]:
    """Sizes of the coded frames in decoding order: places in order, the keyframe of each first."""
    with av.open(str(file)) as container:
        return [packet.size for packet in container.demux(video=0) if packet.size]


def _point(short_side: int, frame_bytes: Sequence[int], rate: Fraction) -> ComplexityPoint:
    """A GOP of 2 s is a keyframe and others; they are known apart."""
    frames = np.asarray(frame_bytes, dtype=np.float64).reshape(-1, FRAMES_A_PLACE)
    others = float(rate) * _GOP_SECONDS - 1
    kbps = (frames[:, 0] + frames[:, 1:].mean(axis=1) * others) * 8 / 1000 / _GOP_SECONDS
    return ComplexityPoint(
        short_side=short_side,
        mean_kbps=max(1, round(float(kbps.mean()))),
        busy_kbps=max(1, round(float(np.quantile(kbps, _BUSY)))),
    )
