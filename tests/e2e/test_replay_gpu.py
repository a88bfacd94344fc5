"""`afterlive replay` on a machine with a GPU: found out, planned, encoded; and what its failing does to the replay.

The GPU is a stand-in behind which the real ffmpeg encodes, and which fails as NVENC does; all else is the product.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path
from media_worker.verify import verify
from tests.e2e.commands import run
from tests.e2e.recordings import make
from tests.gpu_stand_in import StandIn

pytestmark = pytest.mark.slow  # whole replays; `tests/integration` shows the parts
CARD = "nvenc:0"


@dataclass
class Machine:
    """One with a card."""

    gpu: StandIn
    recording: Path
    folder: Path

    def replay(self) -> dict[str, Any]:
        """The summary of a replay that came out whole, by the rules of `afterlive verify`, every frame decoded."""
        out = self.folder / "replay"
        done = run(
            "replay", self.recording, "--out", out, cwd=self.folder, AFTERLIVE_MEDIA_FFMPEG=str(self.gpu.path),
            AFTERLIVE_MEDIA_DEVICES=json.dumps([CARD]), AFTERLIVE_MEDIA_SCRATCH=str(self.folder / "scratch"),
            AFTERLIVE_MEDIA_CONCURRENCY="2", AFTERLIVE_MEDIA_CONTENT_AWARE="false", AFTERLIVE_MEDIA_PRESET="ultrafast",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = verify(str(out / "master.m3u8"))
        assert report.ok, report.findings
        summary: dict[str, Any] = json.loads((out / "replay.json").read_text())
        return summary

    def chunks(self) -> list[tuple[str, str]]:
        """Tier and outcome of each start for the card that was for a chunk, not for a probe."""
        return [(call.tier, call.outcome) for call in self.gpu.calls() if call.device == CARD and not call.probe]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recording") / "live.mp4")


@pytest.fixture
def machine(recording: Path, tmp_path: Path) -> Machine:
    return Machine(StandIn(tmp_path / "gpu", ffmpeg_path(MediaSettings(_env_file=None))), recording, tmp_path)


def encoders(summary: dict[str, Any]) -> set[str]:
    return {rung["encoder"] for rung in summary["rungs"]}


def test_a_card_that_works_makes_the_replay(machine: Machine) -> None:
    assert encoders(machine.replay()) == {"h264_nvenc"}
    assert set(machine.chunks()) == {("cuda", "made")}


def test_another_tier_in_the_midst_of_a_replay_changes_nothing_in_it(machine: Machine) -> None:
    machine.gpu.fail("no decoder", tier="cuda", naming="360p", after=2)
    summary = machine.replay()
    assert encoders(summary) == {"h264_nvenc"}
    assert {(each["device"], each["tier"]) for each in summary["made_on"]} == {(CARD, "cuda"), (CARD, "cuda-upload")}
    assert sum(each["fallbacks"] for each in summary["made_on"]) >= 1
    assert {("cuda", "made"), ("cuda", "no decoder"), ("cuda-upload", "made")} == set(machine.chunks())


def test_a_card_that_dies_in_the_midst_of_a_replay(machine: Machine) -> None:
    """What is left, and what was made, is made by the CPU: one init segment a rendition, and the replay is whole."""
    machine.gpu.fail("no driver", naming="360p", after=2)
    summary = machine.replay()
    assert encoders(summary) == {"libx264"}
    assert {each["device"] for each in summary["made_on"]} == {"cpu"}
    assert ("cuda", "made") in machine.chunks()
    assert ("cuda", "no driver") in machine.chunks()


def test_a_dead_card_is_found_out_before_anything_is_planned(machine: Machine) -> None:
    machine.gpu.fail("no driver")
    assert encoders(machine.replay()) == {"libx264"}
    assert machine.chunks() == []
