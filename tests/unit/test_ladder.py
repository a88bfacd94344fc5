"""Which renditions a recording gets."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from control.errors import LadderInvalid
from pipelines.ladder import Step, make_rungs, read_ladder, timescale
from tests.unit.facts import video

BELOW_1080 = ["720p 1280x720", "540p 960x540", "432p 768x432", "360p 640x360", "234p 416x234"]
SIZES = [
    # source width, height, rate → rungs as (name, width, height, rate)
    (1920, 1080, 30, ["1080p 1920x1080", *BELOW_1080]),
    (3840, 2160, 30, ["1080p 1920x1080", *BELOW_1080]),
    (1280, 720, 30, BELOW_1080),
    (720, 1280, 30, ["720p 720x1280", "540p 540x960", "432p 432x768", "360p 360x640", "234p 234x416"]),
    (854, 480, 30, ["480p 854x480", "360p 640x360", "234p 416x234"]),
    (1024, 576, 30, ["576p 1024x576", "432p 768x432", "360p 640x360", "234p 416x234"]),
    (321, 181, 30, ["180p 320x180"]),
    (320, 180, 30, ["180p 320x180"]),
    (640, 272, 25, ["272p 640x272", "234p 550x234"]),
    (640, 640, 30, ["640p 640x640", "540p 540x540", "432p 432x432", "360p 360x360", "234p 234x234"]),
    (65, 33, 30, ["32p 64x32"]),
    (2, 2, 30, ["2p 2x2"]),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height", "rate", "expected"), SIZES)
def test_rungs_fit_the_source(width: int, height: int, rate: int, expected: list[str]) -> None:
    rungs = make_rungs(video(width, height, rate), Fraction(rate))
    assert [f"{rung.name} {rung.width}x{rung.height}" for rung in rungs] == expected
    for rung in rungs:
        assert rung.width % 2 == rung.height % 2 == 0
        assert rung.width <= max(width, 2)
        assert rung.height <= max(height, 2)


@pytest.mark.parametrize(
    ("rate", "small"),
    [
        (60, 30),
        (Fraction(60000, 1001), Fraction(30000, 1001)),
        (50, 25),
        (48, 24),
        (30, 30),
        (25, 25),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
    ],
)
def test_frame_rate_is_kept_and_halved_up_to_432p_above_30(rate: Fraction | int, small: Fraction | int) -> None:
    for rung in make_rungs(video(1920, 1080, rate), Fraction(rate)):
        wanted = small if min(rung.width, rung.height) <= 432 else rate
        assert rung.frame_rate == wanted
        assert rung.frame_rate * rung.frame_step == rate
        assert (rung.timescale / rung.frame_rate).denominator == 1


def test_rates_are_apple_s_and_rise_with_size() -> None:
    slow = {rung.name: rung.video_kbps for rung in make_rungs(video(1920, 1080), Fraction(30))}
    assert slow == {"1080p": 6000, "720p": 3000, "540p": 2000, "432p": 730, "360p": 365, "234p": 145}
    fast = {rung.name: rung.video_kbps for rung in make_rungs(video(1920, 1080, 60), Fraction(60))}
    assert (fast["1080p"], fast["720p"]) == (7800, 4500)


@pytest.mark.parametrize("height", [240, 300, 480, 576, 600, 700, 900, 1000])
def test_a_size_between_two_steps_has_a_rate_between_theirs(height: int) -> None:
    rungs = make_rungs(video(round(height * 16 / 9), height), Fraction(30))
    rates = [rung.video_kbps for rung in rungs]
    assert rates == sorted(rates, reverse=True)
    assert rungs[0].height == height // 2 * 2
    assert all(rungs[0].height / rung.height >= 1.15 for rung in rungs[1:])


def test_peak_stays_under_twice_the_average() -> None:
    for rung in make_rungs(video(1920, 1080), Fraction(30)):
        assert rung.video_kbps < rung.max_kbps < 2 * rung.video_kbps


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(25), Fraction(25, 2), Fraction(137, 5), Fraction(1)])
def test_a_frame_is_whole_ticks(rate: Fraction) -> None:
    assert (timescale(rate) / rate).denominator == 1
    assert timescale(rate) >= 1000


def test_a_ladder_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text("[[rung]]\nshort_side = 360\nkbps = 500\n[[rung]]\nshort_side = 720\nkbps = 2500\nmax_fps = 30\n")
    steps = read_ladder(path)
    assert steps == (Step(short_side=720, kbps=2500, max_fps=30), Step(short_side=360, kbps=500))
    rungs = make_rungs(video(1920, 1080, 60), Fraction(60), steps)
    assert [(rung.name, rung.frame_step) for rung in rungs] == [("720p", 2), ("360p", 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no [[rung]]"),
        ("rung = 3", "no [[rung]]"),
        ("[[rung]]\nkbps = 500", "rung 1, short_side"),
        ("[[rung]]\nshort_side = 360\nkbps = 500\n[[rung]]\nshort_side = 360\nkbps = 600", "same short_side"),
        ("[[rung]]\nshort_side = 360\nkbps = -1", "rung 1, kbps"),
        ("[[rung]]\nshort_side = 360\nkbps = 500\nwidth = 4", "rung 1, width"),
        ("[[rung", "Expected"),
    ],
)
def test_a_wrong_ladder_says_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "ladder.toml"
    path.write_text(text)
    with pytest.raises(LadderInvalid) as caught:
        read_ladder(path)
    assert says in caught.value.detail
    assert str(path) in caught.value.detail


def test_a_missing_ladder(tmp_path: Path) -> None:
    with pytest.raises(LadderInvalid, match="No such file"):
        read_ladder(tmp_path / "none.toml")
