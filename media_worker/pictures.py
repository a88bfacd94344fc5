"""Poster, candidates and storyboard of a recording, from one pass over its keyframes."""

from __future__ import annotations

import shutil
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
from media_worker.storyboard import EARLY, TILE, VTT, Storyboard, interval_seconds
from media_worker.thumbnails import Choice, Scored, scored

POSTER: Final = "poster.jpg"
FOLDER: Final = "thumbnails"
LONG_SIDE: Final = 1280
"""Of poster and candidates; a smaller picture keeps its size."""
_WORKING: Final = 2 * TILE  # long side of what is scored; tiles are half of it
_LOOKED_AT: Final = 60  # pictures to choose from in a recording too short for as many tiles
_QUALITY: Final = 88


def make_pictures(address: str, job: ThumbnailJob, out: Path, work: Work) -> ThumbnailResult:
    """Write `poster.jpg`, `thumbnails/NN.jpg`, `storyboard.vtt` and `storyboard/NNN.jpg` under `out`.

    Raises OutputRejected where no keyframe decodes; Cancelled, DeadlineExceeded; open_recording's InputErrors.
    """
    started = time.monotonic()
    video = job.video
    storyboard = Storyboard(out, fit(video, TILE), job.duration_seconds)
    choice = Choice(job.duration_seconds)
    # A short recording is looked at more closely than its tiles need.
    apart = float(EARLY) * min(interval_seconds(job.duration_seconds), job.duration_seconds / _LOOKED_AT)
    progress = _Progress(job, work)
    with open_recording(job.source, address) as container:
        stream = pick_video(container, job.source)
        seen = keyframe_pictures(container, stream, video, _WORKING, work, apart_seconds=apart)
        for item in scored(_tiled(seen, storyboard, progress)):
            choice.add(item)
    if not storyboard.tiles:
        raise OutputRejected(key=work.key, reason="no keyframe of the recording could be decoded")
    storyboard.finish()
    candidates = _candidates(address, job, choice.candidates, out, work)
    best = max(candidates, key=lambda candidate: candidate.score)
    shutil.copyfile(out / best.name, out / POSTER)
    progress.finish()
    return ThumbnailResult(
        poster=best.model_copy(update={"name": POSTER}),
        candidates=candidates,
        storyboard=VTT,
        sheets=tuple(storyboard.sheets),
        tiles=storyboard.tiles,
        seconds=round(time.monotonic() - started, 3),
    )


def _tiled(pictures: Iterator[Picture], storyboard: Storyboard, progress: _Progress) -> Iterator[Picture]:
    """The pictures as they pass, each offered to the storyboard and told of."""
    for picture in pictures:
        storyboard.add(picture)
        progress.reached(float(picture.seconds))
        yield picture


def _candidates(address: str, job: ThumbnailJob, chosen: list[Scored], out: Path, work: Work) -> tuple[Thumbnail, ...]:
    (out / FOLDER).mkdir(exist_ok=True)
    with open_recording(job.source, address) as container:
        return tuple(
            _full_size(container, job, item, out, f"{FOLDER}/{number:02d}.jpg", work)
            for number, item in enumerate(chosen, 1)
        )


def _full_size(
    container: InputContainer, job: ThumbnailJob, item: Scored, out: Path, name: str, work: Work
) -> Thumbnail:
    """The chosen keyframe decoded once more, at the size it is to be shown at."""
    stream = pick_video(container, job.source)
    found = picture_at(container, stream, job.video, item.picture.pts, LONG_SIDE, work)
    # A place that cannot be found again (a torn file) still has the small picture.
    image = Image.fromarray((found or item.picture).rgb)
    image.save(out / name, quality=_QUALITY, optimize=True, progressive=True)
    return Thumbnail(
        name=name, seconds=float(item.picture.seconds), score=item.score, width=image.width, height=image.height
    )


class _Progress:
    """Tells how much of the recording has gone by, in its frames."""

    def __init__(self, job: ThumbnailJob, work: Work) -> None:
        self._work = work
        self._duration = max(job.duration_seconds, 0.001)
        self._total = max(job.video.frames, 1)
        self._started = time.monotonic()

    def reached(self, seconds: float) -> None:
        """All but the last frame: what is chosen is still to be written."""
        self._report(min(round(seconds / self._duration * self._total), self._total - 1))

    def finish(self) -> None:
        self._report(self._total)

    def _report(self, done: int) -> None:
        elapsed = max(time.monotonic() - self._started, 0.001)
        self._work.report(Progress(done_frames=done, total_frames=self._total, fps=round(done / elapsed, 1)))
