"""H.264, HEVC and AV1 by the CPU's encoders: chunks made apart are one rendition, of every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from control.bus.messages import ChunkJob, ChunkResult
from control.bus.work import Work
from control.errors import KeyframesMisplaced
from media_worker.chunk import make_chunk
from media_worker.command import chunk_command
from tests.frame_numbers import read_frame_number
from tests.production import Production, decode_video, media_settings

CODECS = {"libx264": "avc1.", "libx265": "hvc1.", "libsvtav1": "av01."}


@pytest.fixture
def made(clip: Callable[[str], Path], tmp_path: Path) -> Production:
    source = clip("eight-seconds")
    return Production(source, tmp_path, media_settings(tmp_path, source.parent, encoders=list(CODECS)))


def job(made: Production, index: int, encoders: Sequence[str]) -> ChunkJob:
    planned = made.chunk_job(index)
    rungs = [
        rung.model_copy(update={"encoder": encoder, "name": f"{rung.name}-{encoder}"})
        for rung in planned.rungs[:1]
        for encoder in encoders
    ]
    return planned.model_copy(update={"rungs": tuple(rungs)})


def make(made: Production, index: int, encoders: Sequence[str]) -> ChunkResult:
    return make_chunk(job(made, index, encoders), made.store, made.settings, Work("x", 120))


def test_each_codec_gives_whole_renditions_of_chunks_made_apart(made: Production) -> None:
    """All three from one decoding."""
    encoders = tuple(CODECS)
    second, first = make(made, 1, encoders), make(made, 0, encoders)
    assert first.encoders == second.encoders == encoders
    for encoder, one, other in zip(encoders, first.tracks, second.tracks, strict=True):
        assert one.init_sha256 == other.init_sha256, encoder
        assert one.codecs.startswith(CODECS[encoder])
        pictures, times = decode_video(made.whole(one.name))
        assert [read_frame_number(picture) for picture in pictures] == list(range(240)), encoder
        # libavformat shows everything later by as many pictures as are reordered; what counts is that none is missing.
        assert [time - times[0] for time in times] == [Fraction(number, 30) for number in range(240)]


@pytest.mark.parametrize(("encoder", "option"), [("libx265", "-x265-params"), ("libsvtav1", "-g")])
def test_keyframes_off_the_grid_are_found_in_each_codec(
    made: Production, encoder: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: object) -> list[str]:
        command = chunk_command(*arguments)  # type: ignore[arg-type]
        at = command.index(option) + 1
        command[at] = command[at].replace("keyint=60", "keyint=45") if option != "-g" else "45"
        return command

    monkeypatch.setattr("media_worker.chunk.chunk_command", wrong)
    with pytest.raises(KeyframesMisplaced):
        make(made, 1, [encoder])
    assert list(made.store.list("")) == []


def test_an_open_gop_is_found_in_hevc(made: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyframes in their places, but what follows one may need what was before it (CRA, not IDR)."""

    def wrong(*arguments: object) -> list[str]:
        return [each.replace("open-gop=0", "open-gop=1") for each in chunk_command(*arguments)]  # type: ignore[arg-type]

    monkeypatch.setattr("media_worker.chunk.chunk_command", wrong)
    with pytest.raises(KeyframesMisplaced):
        make(made, 0, ["libx265"])
