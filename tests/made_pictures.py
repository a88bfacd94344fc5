"""The pictures of a recording, made for tests and read back as a player would read them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from control.bus.messages import MediaInfo, ThumbnailJob, ThumbnailResult
from control.bus.work import Work
from control.settings import MediaSettings
from media_worker.pictures import make_pictures
from media_worker.probe import probe
from tests.clips import make
from tests.frame_numbers import read_frame_number


@dataclass(frozen=True)
class Cue:
    start: Fraction
    end: Fraction
    tile: NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """The pictures of one recording."""

    source: Path
    out: Path
    info: MediaInfo
    result: ThumbnailResult

    @property
    def poster(self) -> NDArray[np.uint8]:
        return np.asarray(Image.open(self.out / self.result.poster.name))

    @property
    def cues(self) -> list[Cue]:
        """Read as a player would."""
        found = []
        for block in (self.out / "storyboard.vtt").read_text().strip().split("\n\n")[1:]:
            times, place = block.splitlines()
            name, _, box = place.partition("#xywh=")
            x, y, width, height = (int(part) for part in box.split(","))
            tile = np.asarray(Image.open(self.out / name))[y : y + height, x : x + width]
            start, end = (_seconds(text) for text in times.split(" --> "))
            found.append(Cue(start, end, tile))
        return found

    @property
    def numbers(self) -> list[int]:
        return [read_frame_number(cue.tile) for cue in self.cues]


def _seconds(text: str) -> Fraction:
    hours, minutes, rest = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)


def job_of(source: Path, info: MediaInfo) -> ThumbnailJob:
    return ThumbnailJob(
        replay_id="r1",
        part="pictures",
        source=str(source),
        prefix="replays/r1/",
        video=info.video.model_copy(update={"keyframes": ()}),
        duration_seconds=info.duration_seconds,
    )


def looked_at(source: Path) -> MediaInfo:
    return probe(str(source), f"file:{source}", MediaSettings(_env_file=None), Work("probe", 60)).info


def run(source: Path, out: Path) -> Made:
    info = looked_at(source)
    out.mkdir()
    return Made(source, out, info, make_pictures(f"file:{source}", job_of(source, info), out, Work("pictures", 60)))


def frames_of(source: Path, **reformat: Any) -> dict[Fraction, NDArray[Any]]:
    """Every picture as decoded (not turned, not stretched), by its time from the first."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        tick = stream.time_base
        assert tick is not None
        frames = [(frame.pts or 0, frame.to_ndarray(format="rgb24", **reformat)) for frame in container.decode(stream)]
    first = min(pts for pts, _ in frames)
    return {(pts - first) * tick: pixels for pts, pixels in frames}


def difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean distance of two pictures (0 to 255), the second brought to the first's size."""
    height, width = first.shape[:2]
    other = np.asarray(Image.fromarray(second).resize((width, height), Image.Resampling.BOX))
    return float(np.abs(first.astype(float) - other).mean())


class Studio:
    """Makes clips of the table in a folder, and the pictures of each, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Made] = {}

    def __call__(self, name: str) -> Made:
        if name not in self._made:
            self._made[name] = run(make(name, self.folder), self.folder / f"out-{name}")
        return self._made[name]
