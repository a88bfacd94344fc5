"""The benchmark's measure of bits at equal quality."""

from __future__ import annotations

import pytest

from tests.benchmarks.bd_rate import bd_rate, frontier

CURVE = [(145.0, 40.0), (365.0, 60.0), (730.0, 75.0), (2000.0, 90.0)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_so_many_times_the_bits_for_the_same_quality(factor: float) -> None:
    other = [(kbps * factor, quality) for kbps, quality in CURVE]
    assert bd_rate(CURVE, other) == pytest.approx(factor - 1)
    assert bd_rate(other, CURVE) == pytest.approx(1 / factor - 1)


def test_where_the_points_lie_on_the_same_line_does_not_matter() -> None:
    middle = ((145.0 * 365.0) ** 0.5, 50.0)
    assert bd_rate(CURVE, [*CURVE, middle]) == pytest.approx(0)


def test_only_common_qualities_count() -> None:
    cheaper_above = [*CURVE[:3], (1000.0, 90.0)]
    below = [point for point in CURVE if point[1] <= 75]
    assert bd_rate(below, cheaper_above) == pytest.approx(0)
    assert bd_rate([(100.0, 10.0), (200.0, 20.0)], CURVE) is None


def test_what_is_dearer_and_no_better_does_not_count() -> None:
    assert frontier([(300.0, 50.0), (100.0, 40.0), (200.0, 60.0), (200.0, 30.0)]) == [(100.0, 40.0), (200.0, 60.0)]
