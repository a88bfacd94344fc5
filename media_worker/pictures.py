"""Poster, candidates and storyboard of a recording, from one pass over its keyframes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from av.container import InputContainer
from PIL import Image

from control.bus.messages import Progress, Thumbnail, ThumbnailJob, ThumbnailResult
from control.bus.work import Work
from control.errors import OutputRejected
from media_worker.keyframes import Picture, fit, keyframe_pictures, picture_at
from media_worker.probe import open_recording, pick_video
from media_worker.storyboard import TILE, VTT, Storyboard, interval_seconds
from media_worker.thumbnails import Choice, Scored, scored

POSTER: Final = "poster.jpg"
FOLDER: Final = "thumbnails"
_WORKING: Final = 2 * TILE  # long side of what is scored; tiles are half of it
_POSTER_LONG_SIDE: Final = 1280
_THUMBNAIL_LONG_SIDE: Final = 640
_QUALITY: Final = 88


def make_pictures(address: str, job: ThumbnailJob, out: Path, work: Work) -> ThumbnailResult:
    """Write `poster.jpg`, `thumbnails/NN.jpg`, `storyboard.vtt` and `storyboard/NNN.jpg` under `out`.

    Raises OutputRejected where no keyframe decodes; Cancelled, DeadlineExceeded.
    """
    started = time.monotonic()
    video = job.video
    storyboard = Storyboard(out, fit(video, TILE), job.duration_seconds)
    choice = Choice(job.duration_seconds)
    apart = interval_seconds(job.duration_seconds)
    with open_recording(job.source, address) as container:
        stream = pick_video(container, job.source)
        seen = keyframe_pictures(container, stream, video, _WORKING, work, apart_seconds=apart)
        for item in scored(_told(seen, storyboard, job, work)):
            choice.add(item)
    if not storyboard.tiles:
        raise OutputRejected(key=work.key, reason="no keyframe of the recording could be decoded")
    storyboard.finish()
    (out / FOLDER).mkdir(exist_ok=True)
    with open_recording(job.source, address) as container:
        poster = _full_size(container, job, choice.poster, out, POSTER, work)
        candidates = tuple(
            _full_size(container, job, item, out, f"{FOLDER}/{number:02d}.jpg", work)
            for number, item in enumerate(choice.candidates, 1)
        )
    return ThumbnailResult(
        poster=poster,
        candidates=candidates,
        storyboard=VTT,
        sheets=tuple(storyboard.sheets),
        tiles=storyboard.tiles,
        seconds=round(time.monotonic() - started, 3),
    )


def _told(pictures: Iterator[Picture], storyboard: Storyboard, job: ThumbnailJob, work: Work) -> Iterator[Picture]:
    """The pictures as they pass, each put on the storyboard and told of."""
    total = max(1, round(job.duration_seconds * 10))
    for picture in pictures:
        storyboard.add(picture)
        yield picture
        done = min(round(float(picture.seconds) * 10), total - 1)
        work.report(Progress(done_frames=done, total_frames=total, fps=0))


def _full_size(
    container: InputContainer, job: ThumbnailJob, item: Scored, out: Path, name: str, work: Work
) -> Thumbnail:
    """The chosen keyframe decoded once more, at the size it is to be shown at."""
    stream = pick_video(container, job.source)
    long_side = _POSTER_LONG_SIDE if name == POSTER else _THUMBNAIL_LONG_SIDE
    found = picture_at(container, stream, job.video, item.picture.pts, long_side, work)
    # A place that cannot be found again (a torn file) still has the small picture.
    image = Image.fromarray((found or item.picture).rgb)
    image.save(out / name, quality=_QUALITY, optimize=True, progressive=True)
    return Thumbnail(
        name=name, seconds=float(item.picture.seconds), score=item.score, width=image.width, height=image.height
    )
