"""The demo, as a newcomer runs it: it ends by itself, and its replay plays in a real browser."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.browser import play_and_check
from tests.e2e.commands import run, started, wait_for
from tests.e2e.recordings import make


@pytest.fixture
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recordings") / "live.mp4", seconds=7)


def test_of_a_recording_of_ones_own_it_fetches_the_replay_back_and_ends(tmp_path: Path, recording: Path) -> None:
    done = run("demo", "--source", recording, "--exit", cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    ended = ("the stream ended:", "replay.playable:", "replay.completed:", "fetched back and checked:")
    for line in ("paid and confirmed:", *ended):
        assert line in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
def test_its_replay_plays_to_the_end_and_seeks_in_a_browser(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started("demo", cwd=tmp_path, log=log, PYTHONUNBUFFERED="1") as process:
        wait_for(lambda: "Open it in a browser" in log.read_text(), seconds=150, what="the demo is done")
        found = re.search(r"http://127\.0\.0\.1:\d+/play/\S+", log.read_text())
        assert found
        report = play_and_check(found[0], duration_seconds=18, speed=2.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    assert report.errors == []
    assert report.ended
    assert report.seeks_ok
    assert report.qualities_ok
    assert report.storyboard_ok
    assert report.engine.startswith("hls.js")
    assert abs(report.duration_seconds - 18) < 0.05
    assert report.frames_decoded > 18 * 30 * 0.5


def test_a_source_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    done = run("demo", "--source", "none.mp4", "--exit", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "afterlive: not-found: There is no file none.mp4."
