"""`afterlive replay` in HEVC and AV1: whole replays by the rules, every frame decoded."""

from __future__ import annotations

import json
from pathlib import Path

import m3u8
import pytest

from media_worker.verify import verify
from tests.e2e.commands import run
from tests.e2e.recordings import make


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recording") / "live.mp4")


@pytest.mark.slow  # whole replays
@pytest.mark.parametrize(
    ("codec", "encoder", "begins"), [("hevc", "libx265", "hvc1.1."), ("av1", "libsvtav1", "av01.0.")]
)
def test_a_replay_in_another_codec(codec: str, encoder: str, begins: str, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay"
    done = run(
        "replay", recording, "--out", out, cwd=tmp_path, AFTERLIVE_MEDIA_CODEC=codec,
        AFTERLIVE_MEDIA_PRESET="ultrafast", AFTERLIVE_MEDIA_SCRATCH=str(tmp_path / "scratch"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = verify(str(out / "master.m3u8"))
    assert report.ok, report.findings
    summary = json.loads((out / "replay.json").read_text())
    assert {rung["encoder"] for rung in summary["rungs"]} == {encoder}
    assert all(summary["checks"].values())
    for playlist in m3u8.load(str(out / "master.m3u8")).playlists:
        assert (playlist.stream_info.codecs or "").startswith(begins)
