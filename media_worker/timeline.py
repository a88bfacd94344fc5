"""What a list of timestamps says: the frame rate, whether it is constant, where it jumps. Pure NumPy.

Timestamps are int64 arrays in a track's time base; `tick` is that time base in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ticks = NDArray[np.int64]

# Rates cameras, encoders and broadcast use (SMPTE/ITU rates and their simple fractions).
STANDARD_RATES: Final = tuple(
    Fraction(n, d)
    for n, d in (
        (30, 1), (25, 1), (60, 1), (50, 1), (24, 1), (30000, 1001), (60000, 1001), (24000, 1001),
        (15, 1), (10, 1), (20, 1), (12, 1), (25, 2), (15000, 1001), (48, 1), (90, 1), (100, 1), (120, 1),
        (120000, 1001), (5, 1),
    )
)  # fmt: skip

# A forward step longer than this is a break in the recording, not a pause: ffmpeg's own dts_delta_threshold.
JUMP_SECONDS: Final = 10.0
# Live encoders jitter; a step back of less than this is noise.
BACK_SECONDS: Final = 0.5
# A frame within this part of a slot from the grid is on the grid.
_ON_GRID: Final = 0.2
# A step this many slots away from whole ones is a break, not jitter.
_OFF_STEP: Final = 0.3
_SHORT_RUN: Final = 8
_MOSTLY: Final = 0.98
# Of a variable rate: frames in a row that make a rate, and how far off the standard rate that serves for it may lie.
_BUSY_RUN: Final = 32
_SERVES: Final = (Fraction(95, 100), Fraction(125, 100))


@dataclass(frozen=True)
class Rate:
    """A frame rate, exact, and whether the frames keep to it."""

    rate: Fraction
    variable: bool


def find_rate(pts: Ticks, tick: Fraction, hint: Fraction | None = None) -> Rate:
    """The frame rate of presentation times `pts` (any order, n ≥ 1).

    Constant: nearly all frames lie on the grid of one rate, holes allowed (frames a live encoder dropped).
    Variable: a standard rate of about that of its busy parts, so that hardly a frame of theirs is lost.
    """
    times = np.unique(pts)
    if len(times) < 2:
        return Rate(_sane(hint) or Fraction(30), variable=False)
    median = Fraction(float(np.median(np.diff(times)))).limit_denominator(1000) * tick
    around = min(max(1 / median, Fraction(1)), Fraction(240))
    mean = ((len(times) - 1) / (int(times[-1] - times[0]) * tick)).limit_denominator(1001)
    candidates = [rate for rate in STANDARD_RATES if abs(rate - around) < around / 20]
    if sane := _sane(hint):
        candidates.append(sane)
    if all(abs(mean - rate) > rate / 1000 for rate in STANDARD_RATES):
        # A rate of its own. One that merely drifts off a standard rate (a camera's clock) is not: it takes the
        # standard and, now and then, one frame is repeated or dropped.
        candidates.append(mean)
    fits = [(*on_grid(times, tick, rate), rate) for rate in candidates if round(rate * median) == 1]
    constant = [(miss, rate) for share, miss, rate in fits if share >= _MOSTLY]
    if constant:
        return Rate(min(constant, key=lambda fit: fit[0])[1], variable=False)
    busy = _busy(times, tick)
    serving = [rate for rate in STANDARD_RATES if busy * _SERVES[0] <= rate <= busy * _SERVES[1]]
    return Rate(min(serving, key=lambda rate: (round(rate), rate.denominator), default=busy), variable=True)


def _busy(times: Ticks, tick: Fraction) -> Fraction:
    """The rate of the busy parts of ascending `times`: a tenth of the runs of a second or so are as fast, or faster."""
    run = min(_BUSY_RUN, len(times) - 1)
    lengths = (times[run:] - times[:-run]).astype(np.float64) * float(tick)
    rate = Fraction(float(np.percentile(run / lengths, 90))).limit_denominator(1001)
    return min(max(rate, Fraction(1)), Fraction(240))


def on_grid(times: Ticks, tick: Fraction, rate: Fraction) -> tuple[float, float]:
    """How well ascending `times` keep to `rate`: the share (0 to 1) on its grid, and their mean distance in slots.

    Behind a break the grid starts anew: an encoder that came back counts frames from its own zero.
    """
    steps = np.diff(times).astype(np.float64) * float(tick * rate)
    whole = np.maximum(np.rint(steps), 1)
    runs = np.concatenate(([0], np.cumsum(np.abs(steps - whole) > _OFF_STEP)))
    slots = (times - times[0]).astype(np.float64) * float(tick * rate)
    starts = np.searchsorted(runs, np.arange(runs[-1] + 1))
    inside = slots - slots[starts][runs]
    misses = np.abs(inside - np.rint(inside))
    # A run of a frame or two fits any grid, so it speaks for none.
    lengths = np.diff(np.append(starts, len(times)))
    counts = (misses < _ON_GRID) & (lengths[runs] > min(_SHORT_RUN, len(times) - 1))
    return float(np.mean(counts)), float(np.mean(misses))


def find_jumps(dts: Ticks, tick: Fraction) -> list[int]:
    """Indexes i (1-based into `dts`, decode order) where the clock jumps between i-1 and i: back, or far ahead."""
    if len(dts) < 2:
        return []
    steps = np.diff(dts).astype(np.float64) * float(tick)
    return [int(i) + 1 for i in np.flatnonzero((steps > JUMP_SECONDS) | (steps < -BACK_SECONDS))]


def thin(times: list[int], apart: int) -> tuple[int, ...]:
    """`times` ascending, without those less than `apart` after the one kept before."""
    kept: list[int] = []
    for time in sorted(set(times)):
        if not kept or time - kept[-1] >= apart:
            kept.append(time)
    return tuple(kept)


def _sane(rate: Fraction | None) -> Fraction | None:
    return rate if rate and 1 <= rate <= 240 else None
