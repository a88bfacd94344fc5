"""Sheets and their WebVTT: sizes, places, times."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media_worker.keyframes import Picture, fit
from media_worker.storyboard import TILE, Storyboard, interval_seconds, timestamp
from tests.unit.facts import video

SIZE = (160, 90)


def made(out: Path, times: list[Fraction], duration_seconds: float, size: tuple[int, int] = SIZE) -> Storyboard:
    """A storyboard of plain pictures, brighter by one with each (and dark again after 250)."""
    storyboard = Storyboard(out, size, duration_seconds)
    for number, seconds in enumerate(times):
        rgb = np.full((size[1] * 2, size[0] * 2, 3), number % 250, dtype=np.uint8)
        storyboard.add(Picture(round(seconds * 90_000), seconds, rgb))
    storyboard.finish()
    return storyboard


def every(seconds: Fraction | int, count: int) -> list[Fraction]:
    return [Fraction(seconds) * number for number in range(count)]


def cues(out: Path) -> list[tuple[str, str, str]]:
    """(start, end, what is shown) of each cue."""
    head, *blocks = (out / "storyboard.vtt").read_text().strip().split("\n\n")
    assert head == "WEBVTT"
    return [
        (times.split(" --> ")[0], times.split(" --> ")[1], place)
        for times, place in (block.splitlines() for block in blocks)
    ]


@pytest.mark.parametrize(
    ("duration_seconds", "interval"),
    [(0.03, 2), (10, 2), (180, 2), (400, 2), (600, 3), (1200, 6), (2000, 10), (7200, 10), (18000, 10)],
)
def test_the_interval_follows_from_the_duration(duration_seconds: float, interval: float) -> None:
    assert interval_seconds(duration_seconds) == pytest.approx(interval)


def test_medium_recordings_have_between_a_hundred_and_two_hundred_tiles() -> None:
    for duration in range(200, 2001, 100):
        assert 100 <= duration / interval_seconds(duration) <= 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (Fraction(0), "00:00:00.000"),
        (Fraction(1001, 30000), "00:00:00.033"),
        (Fraction(59_9996, 10_000), "00:01:00.000"),
        (Fraction(3600 * 5 + 61) + Fraction(1, 3), "05:01:01.333"),
        (Fraction(360_000), "100:00:00.000"),
    ],
)
def test_timestamps_are_exact_to_the_millisecond(seconds: Fraction, text: str) -> None:
    assert timestamp(seconds) == text


def test_cues_go_from_keyframe_to_keyframe_from_zero_to_the_end(tmp_path: Path) -> None:
    made(tmp_path, [Fraction(1001, 30000), Fraction(61061, 30000), Fraction(122122, 30000)], 6.5)
    found = cues(tmp_path)
    assert [(start, end) for start, end, _ in found] == [
        ("00:00:00.000", "00:00:02.035"),
        ("00:00:02.035", "00:00:04.071"),
        ("00:00:04.071", "00:00:06.500"),
    ]
    assert found[2][2] == "storyboard/001.jpg#xywh=320,0,160,90"


def test_sheets_fill_and_the_last_keeps_its_used_rows_and_tiles_lie_where_the_cues_say(tmp_path: Path) -> None:
    times = every(10, 223)
    storyboard = made(tmp_path, times, 2230)
    assert storyboard.tiles == 223
    assert storyboard.sheets == [f"storyboard/{number:03d}.jpg" for number in (1, 2, 3)]
    sizes = [Image.open(tmp_path / name).size for name in storyboard.sheets]
    assert sizes == [(1600, 900), (1600, 900), (1600, 270)]
    sheets = {name: np.asarray(Image.open(tmp_path / name)).astype(int) for name in storyboard.sheets}
    for number, (_, _, place) in enumerate(cues(tmp_path)):
        name, _, box = place.partition("#xywh=")
        x, y, width, height = (int(part) for part in box.split(","))
        tile = sheets[name][y : y + height, x : x + width]
        assert tile.shape == (90, 160, 3)
        # The middle: at its rim a tile shares JPEG's blocks with its neighbours.
        assert abs(tile[16:-16, 16:-16] - number % 250).max() <= 2


def test_a_sheet_is_on_disk_as_soon_as_it_is_full(tmp_path: Path) -> None:
    storyboard = Storyboard(tmp_path, SIZE, 3000)
    rgb = np.zeros((90, 160, 3), dtype=np.uint8)
    for number, seconds in enumerate(every(10, 100)):
        assert storyboard.sheets == []
        storyboard.add(Picture(number, seconds, rgb))
    assert storyboard.sheets == ["storyboard/001.jpg"]
    assert (tmp_path / "storyboard/001.jpg").exists()


def test_a_full_last_sheet_is_followed_by_no_empty_one(tmp_path: Path) -> None:
    assert len(made(tmp_path, every(10, 200), 2000).sheets) == 2


def test_fewer_tiles_than_a_row_make_a_narrow_sheet(tmp_path: Path) -> None:
    made(tmp_path, every(2, 3), 6)
    assert Image.open(tmp_path / "storyboard/001.jpg").size == (480, 90)


def test_keyframes_closer_than_the_interval_are_left_out_but_not_those_a_little_early(tmp_path: Path) -> None:
    assert made(tmp_path / "often", every(Fraction(1, 2), 40), 20).tiles == 10
    assert made(tmp_path / "early", every(Fraction(59, 30), 10), 20).tiles == 10


def test_cues_neither_overlap_nor_leave_holes_whatever_the_keyframes(tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    times = list(itertools.accumulate(Fraction(int(step), 90_000) for step in chance.integers(1, 900_000, 60)))
    made(tmp_path, times, float(times[-1]))
    found = cues(tmp_path)
    assert found[0][0] == "00:00:00.000"
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert all(start < end for start, end, _ in found)


@pytest.mark.parametrize(
    ("width", "height", "tile"),
    [(1280, 720, (160, 90)), (720, 1280, (90, 160)), (1920, 800, (160, 66)), (640, 480, (160, 120)),
     (100, 60, (100, 60)), (321, 181, (160, 90)), (3000, 16, (160, 2))],
)  # fmt: skip
def test_tiles_keep_the_picture_s_shape_in_even_sizes(width: int, height: int, tile: tuple[int, int]) -> None:
    assert fit(video(width, height), TILE) == tile
