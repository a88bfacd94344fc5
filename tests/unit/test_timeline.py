"""Frame rates and jumps, from timestamps alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from media_worker.timeline import Ticks, find_jumps, find_rate, thin

MILLISECOND = Fraction(1, 1000)
MPEG = Fraction(1, 90000)
RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)]
RATES += [Fraction(50), Fraction(60000, 1001), Fraction(60), Fraction(15), Fraction(25, 2), Fraction(10)]


def frames(rate: Fraction, count: int, tick: Fraction, start: int = 0) -> Ticks:
    return np.array([start + round(n / rate / tick) for n in range(count)], dtype=np.int64)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("tick", [MILLISECOND, MPEG, Fraction(1, 30000)], ids=str)
def test_constant_rate_is_exact_in_any_clock(rate: Fraction, tick: Fraction) -> None:
    found = find_rate(frames(rate, 400, tick, start=1_000_000), tick)
    assert (found.rate, found.variable) == (rate, False)


def test_rate_of_an_hour_in_milliseconds_is_not_the_neighbour() -> None:
    for rate in (Fraction(30), Fraction(30000, 1001)):
        assert find_rate(frames(rate, 100_000, MILLISECOND), MILLISECOND).rate == rate


def test_frames_that_were_dropped_leave_holes_not_another_rate() -> None:
    times = np.delete(frames(Fraction(30), 600, MILLISECOND), np.arange(100, 190))
    assert find_rate(times, MILLISECOND).rate == 30
    assert not find_rate(times, MILLISECOND).variable


def test_jitter_of_a_live_encoder_is_constant_rate() -> None:
    rng = np.random.default_rng(1)
    times = frames(Fraction(30), 600, MILLISECOND) + rng.integers(-3, 4, 600)
    assert find_rate(times, MILLISECOND) == find_rate(frames(Fraction(30), 600, MILLISECOND), MILLISECOND)


def test_decode_order_does_not_matter() -> None:
    times = frames(Fraction(25), 100, MPEG)
    shuffled = times.reshape(-1, 4)[:, [0, 3, 1, 2]].reshape(-1)
    assert find_rate(shuffled, MPEG).rate == 25


def test_truly_variable_rate_takes_the_standard_near_the_median() -> None:
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.integers(18, 50, 500)).astype(np.int64)
    found = find_rate(times, MILLISECOND)
    assert found.variable
    assert found.rate in (Fraction(30), Fraction(30000, 1001))


def test_a_rate_of_its_own_is_kept() -> None:
    rate = Fraction(137, 5)
    assert find_rate(frames(rate, 500, MPEG), MPEG).rate == rate


def test_one_frame_takes_the_container_s_word() -> None:
    one = np.array([5], dtype=np.int64)
    assert find_rate(one, MPEG, Fraction(25)).rate == 25
    assert find_rate(one, MPEG).rate == 30
    assert find_rate(one, MPEG, Fraction(90000)).rate == 30


@pytest.mark.parametrize(
    ("steps", "places"),
    [
        ([100] * 20, []),
        ([100] * 10 + [9_000] + [100] * 5, []),  # a pause of nine seconds is a pause
        ([100] * 10 + [60_000] + [100] * 5, [11]),
        ([100] * 10 + [-1_000] + [100] * 5, [11]),
        ([100] * 10 + [-300] + [100] * 5, []),  # jitter
        ([100] * 3 + [60_000] + [100] * 3 + [-5_000] + [100], [4, 8]),
    ],
)
def test_jumps(steps: list[int], places: list[int]) -> None:
    times = np.cumsum([0, *steps]).astype(np.int64)
    assert find_jumps(times, MILLISECOND) == places


def test_thin_keeps_the_first_and_what_is_far_enough() -> None:
    assert thin([9, 0, 4, 5, 5, 12], 5) == (0, 5, 12)
    assert thin([], 5) == ()
