"""Which pictures may stand for a recording."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from media_worker.keyframes import Picture, Pixels
from media_worker.thumbnails import (
    CANDIDATES,
    Choice,
    Scored,
    colourfulness,
    is_blend,
    luma,
    quality,
    scored,
    sharpness,
)

HEIGHT, WIDTH = 90, 160


def scene(seed: int = 0) -> Pixels:
    """Coloured rectangles: edges, contrast, colour."""
    chance = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH, 3), 110, dtype=np.uint8)
    for _ in range(40):
        y, x = chance.integers(0, HEIGHT - 20), chance.integers(0, WIDTH - 30)
        picture[y : y + 20, x : x + 30] = chance.integers(20, 236, 3)
    return picture


def blurred(picture: Pixels, times: int = 8) -> Pixels:
    out: NDArray[Any] = picture.astype(np.float32)
    for _ in range(times):
        for axis in (0, 1):
            out = (np.roll(out, 1, axis) + out + np.roll(out, -1, axis)) / 3
    return out.astype(np.uint8)


def mixed(first: Pixels, second: Pixels, share: float) -> Pixels:
    return (first * (1 - share) + second * share).astype(np.uint8)


def plain(level: int) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8)


def pictures(*shown: Pixels) -> list[Picture]:
    return [Picture(number * 90_000, Fraction(number), rgb) for number, rgb in enumerate(shown)]


@pytest.mark.parametrize(
    "spoil",
    [
        blurred,
        lambda picture: mixed(picture, plain(0), 0.75),
        lambda picture: mixed(picture, plain(255), 0.75),
        lambda picture: mixed(picture, plain(110), 0.8),
        lambda picture: np.repeat(luma(picture)[..., None], 3, axis=2).astype(np.uint8),
        lambda _: plain(0),
        lambda _: plain(255),
        lambda _: plain(120),
    ],
    ids=["blurred", "dark", "washed out", "low contrast", "grey", "black", "white", "blank"],
)
def test_a_spoilt_picture_is_worse(spoil: Callable[[Pixels], Pixels]) -> None:
    for seed in range(5):
        assert quality(spoil(scene(seed))) < quality(scene(seed))


@pytest.mark.parametrize("level", [0, 16, 120, 235, 255])
def test_blank_pictures_are_unusable(level: int) -> None:
    assert quality(plain(level)) < 0


def test_of_two_dark_pictures_the_one_with_something_in_it_is_better() -> None:
    assert plain(0).mean() < 1
    assert quality(plain(0)) < quality(mixed(scene(), plain(0), 0.9)) < 0


def test_luma_is_that_of_bt709() -> None:
    for rgb, expected in (((255, 0, 0), 54.2), ((0, 255, 0), 182.4), ((0, 0, 255), 18.4), ((255, 255, 255), 255.0)):
        assert luma(np.array([[rgb]], dtype=np.uint8))[0, 0] == pytest.approx(expected, abs=0.1)


def test_sharpness_falls_as_blur_grows_and_is_zero_without_detail() -> None:
    grey = [sharpness(luma(blurred(scene(), times))) for times in (0, 1, 3, 9)]
    assert grey == sorted(grey, reverse=True)
    assert grey[0] > 4 * grey[2]
    assert sharpness(luma(plain(90))) == pytest.approx(0, abs=1e-3)
    assert sharpness(np.zeros((2, 2), dtype=np.float32)) == 0


def test_colourfulness_is_none_for_grey_and_limited() -> None:
    assert colourfulness(plain(77)) == pytest.approx(0, abs=1e-3)
    halves = plain(0)
    halves[:, ::2] = (255, 0, 0)
    halves[:, 1::2] = (0, 0, 255)
    assert colourfulness(halves) == 1.0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_dissolve_and_a_fade_are_blends_of_their_neighbours(share: float) -> None:
    first, last = scene(1), scene(2)
    assert is_blend(first, mixed(first, last, share), last)
    assert is_blend(plain(0), mixed(plain(0), last, share), last)


def test_a_shot_of_its_own_and_a_shot_that_goes_on_are_no_blends() -> None:
    first, last = scene(1), scene(2)
    assert not is_blend(first, scene(3), last)
    assert not is_blend(first, first, last)
    assert not is_blend(first, last, last)
    assert not is_blend(first, first, first)


def test_every_picture_is_scored_once_in_order_beside_its_neighbours() -> None:
    first, last = scene(1), scene(2)
    shown = pictures(first, first, mixed(first, last, 0.5), last, last)
    items = list(scored(iter(shown)))
    assert [item.picture for item in items] == shown
    assert [item.score > 0 for item in items] == [True, True, False, True, True]
    assert items[0].score == pytest.approx(quality(first), abs=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_recordings_of_hardly_any_pictures_are_scored(count: int) -> None:
    assert len(list(scored(iter(pictures(*[scene()] * count))))) == count


def test_a_damaged_picture_is_worse_than_a_black_one() -> None:
    torn = Picture(0, Fraction(0), scene(), damaged=True)
    black = Picture(1, Fraction(1), plain(0))
    first, second = scored(iter([torn, black]))
    assert first.score < second.score < 0


def picked(*scores: float, duration_seconds: float = 60) -> Choice:
    """A choice from pictures spread evenly over the recording."""
    choice = Choice(duration_seconds)
    for number, score in enumerate(scores):
        seconds = Fraction(duration_seconds) * number / len(scores)
        choice.add(Scored(Picture(number, seconds, plain(0)), score))
    return choice


def test_candidates_are_the_best_of_each_stretch() -> None:
    choice = picked(1, 2, 3, 1, 2, 9, 1, 1.5, 5, 4, 0.5, 1)
    assert [item.picture.pts for item in choice.candidates] == [1, 2, 5, 7, 8, 11]
    assert choice.poster.picture.pts == 5


def test_unusable_stretches_have_no_candidate() -> None:
    choice = picked(-1, 2, -0.5, -0.2, 3, -1)
    assert [item.score for item in choice.candidates] == [2, 3]


def test_where_nothing_is_usable_the_least_bad_is_the_poster() -> None:
    choice = picked(-1, -0.8, -0.3, -0.9)
    assert [item.score for item in choice.candidates] == [-0.3]
    assert choice.poster.score == -0.3


def test_there_are_never_more_candidates_than_asked_for_and_late_pictures_count_to_the_last_stretch() -> None:
    choice = picked(*range(1, 100))
    choice.add(Scored(Picture(1000, Fraction(75), plain(0)), 1000.0))
    assert len(choice.candidates) == CANDIDATES
    assert choice.candidates[-1].picture.pts == 1000
