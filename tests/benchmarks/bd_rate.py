"""Bjøntegaard's delta rate: how many more bits one curve takes than another at the same quality. Pure.

Source: G. Bjøntegaard, Calculation of average PSNR differences between RD-curves, ITU-T VCEG-M33 (2001). Between its
points a curve is taken to be a straight line of log rate over quality; his cubics swing where points are as far apart
as a ladder's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
"""(kbit/s, quality)."""
_STEPS = 1000


def bd_rate(reference: Sequence[Point], other: Sequence[Point]) -> float | None:
    """Mean change of the rate from `reference` to `other`: -0.25 is a quarter fewer bits for what looks the same.

    None where the two have no quality in common.
    """
    first, second = frontier(reference), frontier(other)
    low = max(first[0][1], second[0][1])
    high = min(first[-1][1], second[-1][1])
    if high <= low:
        return None
    qualities = np.linspace(low, high, _STEPS)
    change = _log_rates(second, qualities) - _log_rates(first, qualities)
    return math.expm1(float(change.mean()))


def frontier(points: Sequence[Point]) -> list[Point]:
    """Rising in rate and quality, without the points another one is cheaper and better than."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _log_rates(
    points: Sequence[Point], qualities: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rates, known = zip(*points, strict=True)
    return np.interp(qualities, known, np.log(rates))
