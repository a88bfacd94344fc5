"""Which picture stands for a recording: sharp, well exposed, full of detail; no black, no blur, no fade. Pure NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from media_worker.keyframes import Picture, Pixels

Luma = NDArray[np.floating[Any]]

CANDIDATES: Final = 6
_BT709: Final = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
_DARK, _BRIGHT = 28.0, 232.0  # mean luma outside is (nearly) black or white
_FLAT: Final = 12.0  # standard deviation below: fog, a plain slate, the middle of a fade
_BLEND: Final = 0.35  # a picture this well made up of its two neighbours is a dissolve between them


@dataclass(frozen=True)
class Scored:
    """A picture and how good it is; larger is better, below 0 is unusable."""

    picture: Picture
    score: float


def luma(rgb: Pixels) -> Luma:
    """Height × width, 0 to 255."""
    return np.asarray(rgb.astype(np.float32) @ _BT709)


def quality(rgb: Pixels) -> float:
    """What can be said of a picture alone: 0 to about 3; below 0 where it is (nearly) black, white or flat."""
    grey = luma(rgb)
    mean, spread = float(grey.mean()), float(grey.std())
    if not _DARK <= mean <= _BRIGHT or spread < _FLAT:
        return -1.0 + min(spread / 255, 0.9)
    exposure = 1.0 - abs(mean - 120.0) / 135.0
    return 0.35 * float(np.log1p(sharpness(grey))) + exposure + min(spread, 70.0) / 70.0 + 0.5 * colourfulness(rgb)


def sharpness(grey: Luma) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000): blur takes the high frequencies away."""
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle).var())


def colourfulness(rgb: Pixels) -> float:
    """Hasler and Süsstrunk 2003, scaled so that 1 is very colourful."""
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    across, along = red - green, 0.5 * (red + green) - blue
    spread = float(np.hypot(across.std(), along.std()))
    return min((spread + 0.3 * float(np.hypot(across.mean(), along.mean()))) / 109.0, 1.0)


def is_blend(before: Pixels, rgb: Pixels, after: Pixels) -> bool:
    """Whether a picture lies on the way from `before` to `after`, two that differ: a dissolve, or a fade."""
    first, shown, last = (luma(pixels).ravel() for pixels in (before, rgb, after))
    way = last - first
    length = float(way @ way)
    if length / len(way) < _FLAT**2:
        return False  # the neighbours are alike: the same shot goes on
    share = float((shown - first) @ way) / length
    rest = shown - (first + share * way)
    return 0.1 < share < 0.9 and float(rest @ rest) / length < _BLEND**2


def scored(pictures: Iterator[Picture]) -> Iterator[Scored]:
    """Each picture with its score, seen beside its neighbours; three in memory at a time."""
    before: Picture | None = None
    shown: Picture | None = None
    for after in pictures:
        if shown is not None:
            yield _score(before, shown, after)
        before, shown = shown, after
    if shown is not None:
        yield _score(before, shown, None)


def _score(before: Picture | None, shown: Picture, after: Picture | None) -> Scored:
    score = quality(shown.rgb)
    if shown.damaged:
        return Scored(shown, round(min(score, 0.0) - 2.0, 4))
    if before is not None and after is not None and is_blend(before.rgb, shown.rgb, after.rgb):
        score = min(score - 2.0, -0.1)
    return Scored(shown, round(score, 4))


class Choice:
    """The best of each stretch of a recording, kept while its pictures go by."""

    def __init__(self, duration_seconds: float) -> None:
        self._stretch = max(duration_seconds, 0.001) / CANDIDATES
        self._best: dict[int, Scored] = {}

    def add(self, item: Scored) -> None:
        number = min(int(float(item.picture.seconds) / self._stretch), CANDIDATES - 1)
        if number not in self._best or item.score > self._best[number].score:
            self._best[number] = item

    @property
    def candidates(self) -> list[Scored]:
        """In the order of the recording. Those that are unusable only where there is nothing else."""
        found = [item for _, item in sorted(self._best.items())]
        return [item for item in found if item.score > 0] or [max(found, key=lambda item: item.score)]

    @property
    def poster(self) -> Scored:
        return max(self.candidates, key=lambda item: item.score)
