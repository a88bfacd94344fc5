"""A whole replay by the real media tier on a machine that has a GPU, and one whose GPU fails half-way.

The GPU is a stand-in: an ffmpeg that makes on the processor what is asked of NVENC, or fails as its driver does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.bus.app import MEDIA, PIPELINES
from control.bus.messages import Plan
from control.ledger import replays, views
from control.settings import MediaSettings, Settings
from media_worker.cli import verify
from media_worker.encoders import attempts
from media_worker.ffmpeg import ffmpeg_path
from tests.backend import Made
from tests.bus import bus
from tests.e2e.recordings import make
from tests.gpu_stand_in import StandIn

_CHUNKS_BEFORE = 2


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(attempts, "_incapable", {})
    return StandIn(tmp_path / "gpu", ffmpeg_path(MediaSettings(_env_file=None)))


@pytest.fixture
def settings(settings: Settings, gpu: StandIn) -> Settings:
    own = settings.media.model_dump(exclude_unset=True)
    told = {
        "ffmpeg": str(gpu.path),
        "devices": ["nvenc:0"],
        "concurrency": 1,
        "chunk_seconds": 6,
    }
    return settings.model_copy(update={"media": MediaSettings(_env_file=None, **(own | told))})


def plan(made: Made, replay_id: str) -> Plan:
    with made.ledger.read() as session:
        return Plan.model_validate(replays.get(session, replay_id).plan)


def verified(made: Made, replay_id: str) -> None:
    """Against Apple's rules, every frame decoded; and by its own checks."""
    store = Path(made.settings.storage.url.removeprefix("file:"))
    done = CliRunner().invoke(verify, [str(store / f"replays/{replay_id}/master.m3u8"), "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(made.store.get_bytes(f"replays/{replay_id}/replay.json"))
    assert set(summary["checks"].values()) == {True}


@pytest.mark.slow  # test_encoder_fallback shows the one half of it, test_replay_refused the other
def test_a_gpu_makes_it_until_it_fails(settings: Settings, gpu: StandIn) -> None:
    """What it had made is made again by x264, and the whole fits together."""
    make(settings.media.recording_roots[0] / "a.mp4", seconds=16, size="640x360")
    with bus(settings, modules=(PIPELINES, MEDIA)) as running:
        made = Made(running)
        first = made.end("s", recording="a.mp4")
        made.wait("completed", seconds=120)
        assert {rung.encoder for rung in plan(made, first).rungs} == {"h264_nvenc"}
        assert {way for way in gpu.ways() if way[2] != "made"} == set()
        verified(made, first)

        gpu.fail("made", times=_CHUNKS_BEFORE)
        gpu.fail("no driver")
        second = made.end("t", recording="a.mp4")
        made.wait("completed", "t", seconds=120)
        pinned = plan(made, second)
        assert {rung.encoder for rung in pinned.rungs} == {"libx264"}
        assert {(left.name, left.encoder) for left in pinned.left} == {("360p", "h264_nvenc"), ("234p", "h264_nvenc")}
        with made.ledger.read() as session:
            happened = {event.name: event.data for event in views.events_after(session, "t", 0)}
        assert happened["replay.replanned"]["chunks_again"] == _CHUNKS_BEFORE
        verified(made, second)
        files = made.files(f"replays/{second}/")
        assert {name.partition("/")[0] for name in files if "/" in name} == {
            "360p-libx264", "234p-libx264", "audio", "storyboard", "thumbnails",
        }  # fmt: skip
