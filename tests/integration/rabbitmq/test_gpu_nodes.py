"""A fleet as production runs it: a node with a GPU, one without, and what becomes of a replay when the GPU goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.bus import names
from control.bus.publish import send
from control.ledger.engine import Ledger
from control.ledger.failures import page
from tests import brokers, services
from tests.integration.rabbitmq.wire import app_on, depth
from tests.platform import Platform, Process, platform

GPU_QUEUE = "low_priority.nvenc"


class Fleet:
    """The platform with workers that say what the test wants, each with the broker's rights of its tier."""

    def __init__(self, running: Platform, users: dict[str, str], ledger: Ledger) -> None:
        self.platform = running
        self.users = users
        self.ledger = ledger
        self.stream = ""
        fast, notify = (self._worker(tier, tier) for tier in ("fast", "notify"))
        self.client = running.client(running.api(AFTERLIVE_BUS_BROKER_URL=users["api"]))
        running.consuming(fast, notify)

    def media(self, name: str, encoders: str = "", **env: str) -> Process:
        made = self._worker(
            "media", name, TEST_NODE_ENCODERS=encoders, AFTERLIVE_DATABASE_URL="nowhere://",
            AFTERLIVE_MEDIA_CONCURRENCY="1", **env,
        )  # fmt: skip
        self.platform.consuming(made)
        self.until(lambda: self.nodes().get(name, {}).get("state") == "alive", f"{name} is known")
        return made

    def _worker(self, tier: str, name: str = "", **env: str) -> Process:
        return self.platform.worker(tier, name, AFTERLIVE_BUS_BROKER_URL=self.users[tier], **env)

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {item["name"]: item for item in self.client.get("/nodes").raise_for_status().json()["items"]}

    def end(self) -> None:
        (self.platform.home / "recordings" / "24s.mp4").write_bytes(b"a recording")
        self.stream = self.client.post("/streams", json={"title": "x"}).raise_for_status().json()["id"]
        self.client.post(f"/streams/{self.stream}/end", json={"recording": "24s.mp4"}).raise_for_status()

    def replay(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/streams/{self.stream}").raise_for_status().json()["replay"]
        assert found["state"] != "failed", found
        return found

    def completed(self, seconds: float = 120) -> None:
        self.until(lambda: self.replay()["state"] == "completed", "the replay is complete", seconds)

    def happened(self, name: str) -> list[dict[str, Any]]:
        with self.client.stream("GET", f"/streams/{self.stream}/events") as told:
            lines = [line.partition(": ")[2] for line in told.iter_lines() if line.startswith(("event:", "data:"))]
        return [json.loads(data) for event, data in zip(lines[::2], lines[1::2], strict=True) if event == name]

    def tasks(self, task: str) -> list[dict[str, Any]]:
        found = self.client.get("/tasks", params={"key": self.replay()["id"], "limit": 100}).json()["items"]
        return [item for item in found if item["task"] == task]

    def until(self, condition: Any, what: str, seconds: float = 120) -> Any:
        return self.platform.wait(condition, what, seconds=seconds)


@pytest.fixture
def fleet(
    tmp_path: Path,
    rabbitmq: brokers.RabbitMQ,
    broker_url: str,
    redis_server: brokers.RedisServer,
    s3_server: services.S3Server,
) -> Iterator[Fleet]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.upgrade()
    root = Path(__file__).parents[3]
    with platform(
        tmp_path, rabbitmq, redis_server, ledger.url, s3_server, broker_url=broker_url,
        program=(sys.executable, "-m", "tests.gpu_worker"), PYTHONPATH=str(root), TEST_NODE_HOME=str(tmp_path),
        AFTERLIVE_MEDIA_REPORT_SECONDS="0.5", AFTERLIVE_MEDIA_NODE_LOST_SECONDS="3",
        AFTERLIVE_MEDIA_CHUNK_SECONDS="6", AFTERLIVE_STORAGE_URL=f"file:{tmp_path / 'store'}",
    ) as running:  # fmt: skip
        yield Fleet(running, rabbitmq.users(broker_url), ledger)
    ledger.close()


@pytest.mark.slow  # what test_replay_refused shows on the in-process broker
def test_chunks_go_to_the_gpu_and_to_others_when_it_is_gone(fleet: Fleet) -> None:
    """kill -9 of the only GPU node in the middle of a replay: what waits for it is planned again."""
    gpu = fleet.media("gpu", "h264_nvenc", TEST_NODE_CHUNK_SECONDS="0.05")
    cpu = fleet.media("cpu")
    assert fleet.nodes()["gpu"]["queues"] == ["low_priority", GPU_QUEUE]
    assert fleet.nodes()["cpu"]["queues"] == ["low_priority"]
    fleet.end()
    fleet.completed()
    assert {task["queue"] for task in fleet.tasks("media.transcode_chunk")} == {GPU_QUEUE}
    assert "task=media.transcode_chunk" not in cpu.said()
    assert gpu.terminate() == 0
    fleet.until(lambda: fleet.nodes()["gpu"]["state"] == "ended", "it said good-bye")

    slow = fleet.media("gpu-2", "h264_nvenc", TEST_NODE_CHUNK_SECONDS="1")
    fleet.end()
    fleet.until(lambda: fleet.replay()["chunks_done"] >= 1, "a chunk is made")
    slow.kill()
    fleet.until(lambda: fleet.nodes()["gpu-2"]["state"] == "lost", "nothing is heard of it")
    with app_on(fleet.users["beat"]) as clock:
        # As each minute.
        send(clock, names.RECONCILE, {})
        fleet.completed()
    assert "task=media.transcode_chunk" in cpu.said()
    (told,) = fleet.happened("replay.replanned")
    assert (told["encoder"], told["to"], told["reason"]) == ("h264_nvenc", ["libx264"], "lost")
    assert "ACCESS_REFUSED" not in cpu.said()


def test_a_gpu_that_stops_working_is_told_of_and_taken_out(fleet: Fleet) -> None:
    """Its worker goes on with what any can do, and is back in when the GPU is."""
    worker = fleet.media("gpu", "h264_nvenc")
    text = fleet.platform.processes["notify"].metrics()
    assert 'afterlive_nodes{state="alive"} 1.0' in text
    assert 'afterlive_nodes_with_encoder{encoder="h264_nvenc"} 1.0' in text
    home = fleet.platform.home
    (home / "TEST_NODE_LACKS").write_text("h264_nvenc")
    fleet.end()
    fleet.completed()
    (told,) = fleet.happened("replay.replanned")
    assert (told["to"], told["reason"]) == (["libx264"], "unavailable")
    queues = {task["queue"] for task in fleet.tasks("media.transcode_chunk")}
    assert queues == {GPU_QUEUE, "low_priority"}
    with fleet.ledger.read() as session:
        assert page(session, limit=10) == []
    (home / "TEST_NODE_ENCODERS").write_text("")
    fleet.until(lambda: fleet.nodes()["gpu"]["queues"] == ["low_priority"], "it says so")
    fleet.until(lambda: "consumes low_priority.nvenc no longer" in worker.said(), "it is taken out")
    (home / "TEST_NODE_ENCODERS").write_text("h264_nvenc")
    (home / "TEST_NODE_LACKS").write_text("")
    fleet.until(lambda: fleet.nodes()["gpu"]["queues"] == ["low_priority", GPU_QUEUE], "it is back")
    fleet.end()
    fleet.completed()
    assert {task["queue"] for task in fleet.tasks("media.transcode_chunk")} == {GPU_QUEUE}
    assert worker.healthy()
    assert depth(fleet.users["topology"], GPU_QUEUE) == 0
