"""Pictures of real recordings look as they do on the screen: upright, in shape, in colour, without combs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.clip_builders import ffmpeg
from tests.frame_numbers import read_frame_number
from tests.made_pictures import Studio, difference, frames_of, run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("pictures"))


# --- shape ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [("portrait", (180, 320), (90, 160)), ("anamorphic-mp4", (320, 180), (160, 90)),
     ("anamorphic-ts", (320, 180), (160, 90)), ("rotated-90", (180, 320), (90, 160)),
     ("rotated-180", (320, 180), (160, 90)), ("rotated-270", (180, 320), (90, 160)),
     ("odd-size-h264", (320, 180), (160, 90)), ("one-frame-1080p", (1280, 720), (160, 90))],
)  # fmt: skip
def test_pictures_have_the_shape_of_the_screen(
    pictures: Studio, name: str, size: tuple[int, int], tile: tuple[int, int]
) -> None:
    made = pictures(name)
    assert made.poster.shape == (size[1], size[0], 3)
    assert (made.result.poster.width, made.result.poster.height) == size
    assert {cue.tile.shape for cue in made.cues} == {(tile[1], tile[0], 3)}
    # Upright: the number's white cell is bottom left, its black one bottom right.
    assert made.numbers == [round(cue.start * 30) for cue in made.cues]


@pytest.mark.parametrize(("rotation", "plain"), [(90, "portrait"), (180, "mp4"), (270, "portrait")])
def test_a_turned_recording_looks_like_the_one_that_was_not(pictures: Studio, rotation: int, plain: str) -> None:
    turned, reference = pictures(f"rotated-{rotation}"), pictures(plain)
    for first, second in zip(turned.cues, reference.cues, strict=True):
        assert first.start == second.start
        assert difference(first.tile, second.tile) < 4
    frames = frames_of(reference.source)
    assert difference(turned.poster, frames[Fraction(turned.result.poster.seconds).limit_denominator(30)]) < 5


def test_an_anamorphic_recording_looks_like_one_of_square_pixels(pictures: Studio) -> None:
    stored = frames_of(pictures("anamorphic-mp4").source)[Fraction(0)]
    assert stored.shape == (180, 240, 3)
    stretched = np.asarray(Image.fromarray(stored).resize((320, 180)))
    for name in ("anamorphic-mp4", "anamorphic-ts"):
        assert difference(pictures(name).cues[0].tile, stretched) < 12
        assert difference(pictures(name).cues[0].tile, stretched[:, ::-1]) > 40


def test_a_poster_is_as_large_as_1280_and_never_larger_than_the_recording(pictures: Studio) -> None:
    large = pictures("one-frame-1080p")
    assert difference(large.poster, frames_of(large.source, src_colorspace="ITU709")[Fraction(0)]) < 6
    assert pictures("eight-seconds").poster.shape == (180, 320, 3)


# --- colour ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hdr-pq", "hdr-hlg"])
def test_hdr_looks_as_zscale_and_tonemap_make_the_video_look(pictures: Studio, tmp_path: Path, name: str) -> None:
    made = pictures(name)
    assert made.info.video.hdr
    assert made.numbers == [0, 60]
    chain = (
        "zscale=transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709,tonemap=hable:desat=0,"
        "zscale=transfer=bt709:matrix=gbr:range=full,format=gbrp"
    )
    frame = round(made.result.poster.seconds * 30)
    vf = f"select=eq(n\\,{frame}),{chain},format=rgb24"
    ffmpeg("-i", str(made.source), "-vf", vf, "-frames:v", "1", str(tmp_path / "reference.png"))
    reference = np.asarray(Image.open(tmp_path / "reference.png"))
    assert difference(made.poster, reference) < 8
    assert made.poster.reshape(-1, 3).mean(axis=0) == pytest.approx(reference.reshape(-1, 3).mean(axis=0), abs=4)


@pytest.mark.parametrize(
    ("size", "tags", "matrix"),
    [("320x180", (), "bt601"), ("1280x720", (), "bt709"), ("320x180", ("-colorspace", "bt709"), "bt709"),
     ("1280x720", ("-colorspace", "smpte170m"), "bt601")],
)  # fmt: skip
@pytest.mark.parametrize("levels", ["limited", "full"])
def test_colours_are_those_the_recording_says_or_players_assume(
    tmp_path: Path, size: str, tags: tuple[str, ...], matrix: str, levels: str
) -> None:
    source = tmp_path / "green.mp4"
    # RGB (30, 200, 60) in the matrix under test.
    convert = f"format=gbrp,scale=out_color_matrix={matrix}:out_range={levels}:flags=accurate_rnd,format=yuv420p"
    said = ("-color_range", "pc" if levels == "full" else "tv")
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "4", *tags, *said)
    strip = (
        () if tags else ("-bsf:v", "h264_metadata=matrix_coefficients=2:colour_primaries=2:transfer_characteristics=2")
    )
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"color=0x1ec83c:size={size}:rate=30:duration=0.1",
        "-vf",
        convert,
        *encode,
        *strip,
        str(source),
    )
    made = run(source, tmp_path / "out")
    for picture in (made.poster, made.cues[0].tile):
        middle = picture[20:-20, 20:-20].reshape(-1, 3).mean(axis=0)
        assert middle == pytest.approx([30, 200, 60], abs=4)


def test_interlaced_pictures_have_no_combs(pictures: Studio) -> None:
    made = pictures("interlaced")
    assert made.info.video.interlaced
    woven = frames_of(made.source)[Fraction(made.result.poster.seconds).limit_denominator(25)]
    assert _combs(made.poster) < 0.25 * _combs(woven)
    assert read_frame_number(made.poster) == round(made.result.poster.seconds * 25)


def _combs(picture: NDArray[Any]) -> float:
    """How much lines differ from both neighbours, beyond how the neighbours differ; above the painted number."""
    grey = picture[: round(picture.shape[0] * 0.7)].astype(float).mean(axis=2)
    above, line, below = grey[:-2], grey[1:-1], grey[2:]
    return float(np.maximum(np.minimum(np.abs(line - above), np.abs(line - below)) - np.abs(above - below), 0).mean())
