"""`afterlive up`: the whole back end in one process, killed, cancelled, and used by two streams at once."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.commands import all_gone, ffmpegs_of, run, started, wait_for
from tests.e2e.recordings import make
from tests.services import free_port


@dataclass
class Up:
    """A running `afterlive up` and a client with its key."""

    process: Any
    client: httpx.Client

    def end(self, title: str, recording: str) -> str:
        stream_id = str(self.client.post("/streams", json={"title": title}).raise_for_status().json()["id"])
        answer = self.client.post(f"/streams/{stream_id}/end", json={"recording": recording})
        assert answer.status_code == 202, answer.text
        return stream_id

    def replay(self, stream_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/streams/{stream_id}").raise_for_status().json()["replay"]
        return found

    def wait(self, stream_id: str, *states: str, seconds: float = 90) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (view := self.replay(stream_id))["state"] not in states:
            assert time.monotonic() < deadline, view
            time.sleep(0.1)
        return view


@contextmanager
def up(home: Path, **env: str) -> Iterator[Up]:
    port = free_port()
    log = home / "log"
    with started("up", "--port", str(port), cwd=home, log=log, **env) as process:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, seconds=60, what="the API answers")
        client.headers["X-API-Key"] = (home / "var" / "api-key").read_text().strip()
        yield Up(process, client)
        client.close()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    make(folder / "short.mp4", seconds=13, size="320x180")
    make(folder / "middle.mp4", seconds=30)
    make(folder / "long.mp4", seconds=60)
    (folder / "garbage.mp4").write_bytes(b"no film " * 9999)
    return folder


@pytest.fixture
def home(recordings: Path, tmp_path: Path) -> Path:
    """A folder to run in, with recordings where a media server puts them."""
    shutil.copytree(recordings, tmp_path / "var" / "recordings")
    return tmp_path


def test_killed_while_working_it_goes_on_at_the_next_start(home: Path) -> None:
    slow = {"AFTERLIVE_MEDIA_PRESET": "medium", "AFTERLIVE_MEDIA_CHUNK_SECONDS": "6"}
    with up(home, **slow) as first:
        stream_id = first.end("Killed", "middle.mp4")
        wait_for(lambda: first.replay(stream_id)["chunks_done"] >= 1, seconds=90, what="a chunk is done")
        first.process.kill()
        first.process.wait(5)
    with up(home, **slow) as second:
        view = second.wait(stream_id, "completed", "failed")
        assert view["state"] == "completed", view["problem"]
        stored = home / "var" / "store" / view["prefix"]
        assert not (stored / ".work").exists()
        summary = json.loads((stored / "replay.json").read_text())
        assert [rung["frames"] for rung in summary["rungs"]] == [900, 900]
    done = run("verify", stored / "master.m3u8", cwd=home)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow  # a longer piece of the same story is told above
def test_accepted_and_killed_at_once_it_is_made_all_the_same(home: Path) -> None:
    with up(home) as first:
        stream_id = first.end("Accepted", "short.mp4")
        first.process.kill()
        first.process.wait(5)
    with up(home) as second:
        assert second.wait(stream_id, "completed", "failed")["state"] == "completed"


def test_cancel_stops_ffmpeg_within_a_second_and_leaves_nothing(home: Path) -> None:
    with up(home, AFTERLIVE_MEDIA_PRESET="slower") as running:
        stream_id = running.end("Cancelled", "long.mp4")
        wait_for(lambda: ffmpegs_of(running.process), seconds=30, what="ffmpeg runs")
        time.sleep(0.5)
        encoders = ffmpegs_of(running.process)
        prefix = running.replay(stream_id)["prefix"]
        assert running.client.post(f"/streams/{stream_id}/cancel").status_code == 202
        assert all_gone(encoders, seconds=1)
        assert running.replay(stream_id)["state"] == "cancelled"
        stored = home / "var" / "store" / prefix
        wait_for(lambda: not stored.exists() or not any(stored.rglob("*.*")), seconds=5, what="nothing is left")
        wait_for(lambda: ffmpegs_of(running.process) == [], seconds=10, what="no encoder starts anew")


@pytest.mark.slow  # what test_replay_workflow shows of parts that cost nothing
def test_a_long_stream_does_not_starve_a_short_one(home: Path) -> None:
    with up(home, AFTERLIVE_MEDIA_PRESET="slow", AFTERLIVE_MEDIA_CHUNK_SECONDS="6") as running:
        long = running.end("Five hours", "long.mp4")
        wait_for(lambda: running.replay(long)["chunks_total"] > 0, seconds=30, what="the long one is planned")
        short = running.end("Five minutes", "short.mp4")
        assert running.wait(short, "completed", "failed")["state"] == "completed"
        assert running.replay(long)["chunks_done"] < running.replay(long)["chunks_total"]


def test_bad_input_has_a_named_error_and_the_workers_go_on(home: Path) -> None:
    with up(home) as running:
        bad = running.end("Garbage", "garbage.mp4")
        gone = running.end("Missing", "missing.mp4")
        good = running.end("Good", "short.mp4")
        assert running.wait(bad, "failed")["problem"]["code"] == "recording-not-media"
        assert running.wait(gone, "failed")["problem"]["code"] == "recording-missing"
        assert running.wait(good, "completed")["problem"] is None


def test_a_second_one_in_the_same_folder_is_refused(home: Path) -> None:
    with up(home):
        done = run("up", "--port", str(free_port()), cwd=home)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("afterlive: conflict: afterlive up already works in var")


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=lambda how: how.name
)
def test_it_ends_when_told_also_while_working(home: Path, how: signal.Signals) -> None:
    with up(home, AFTERLIVE_MEDIA_PRESET="slower") as running:
        running.end("Working", "long.mp4")
        wait_for(lambda: ffmpegs_of(running.process), seconds=30, what="ffmpeg runs")
        encoders = ffmpegs_of(running.process)
        running.process.send_signal(how)
        assert running.process.wait(10) == 0
        assert all_gone(encoders, seconds=1)


def test_keys_and_secrets_are_for_the_owner_alone(home: Path) -> None:
    with up(home):
        for name in ("api-key", "signing-secret"):
            assert (home / "var" / name).stat().st_mode & 0o777 == 0o600
        log = (home / "log").read_text()
        assert (home / "var" / "api-key").read_text().strip() not in log
