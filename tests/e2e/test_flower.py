"""Flower on a running platform: it sees the workers, and of their tasks no secret."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from control.bus.app import make_app
from control.bus.publish import publisher_of, send
from control.ledger.engine import Ledger
from control.settings import BusSettings
from tests import brokers, chores
from tests.platform import Platform, Process
from tests.services import free_port, stop

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-735912"


@pytest.fixture
def running(tmp_path: Path, rabbitmq: brokers.RabbitMQ, broker_url: str) -> Iterator[Platform]:
    """Each tier by its own user, on an embedded ledger: Flower looks at none."""
    users = rabbitmq.users(broker_url)
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "AFTERLIVE_BUS_BROKER_URL": users["fast"],
        "AFTERLIVE_DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.sqlite'}",
        "AFTERLIVE_MEDIA_CONCURRENCY": "1",
    }
    ledger = Ledger(env["AFTERLIVE_DATABASE_URL"])
    ledger.upgrade()
    chores.prepare(ledger)
    ledger.close()
    made = Platform(tmp_path, env, broker_url, program=(sys.executable, "-m", "tests.chore_worker"))
    made.worker("fast", "one")
    made.worker("media", "two", AFTERLIVE_BUS_BROKER_URL=users["media"])
    yield made
    made.stop()


@pytest.fixture
def flower(running: Platform, rabbitmq: brokers.RabbitMQ, tmp_path: Path) -> Iterator[httpx.Client]:
    """`make flower`, with the least rights it needs."""
    port = free_port()
    user = rabbitmq.users(running.broker_url)["monitor"]
    command = [sys.executable, "-m", "celery", "--app", "control.bus.flower", "flower", f"--port={port}"]
    env = running.env | {"AFTERLIVE_BUS_BROKER_URL": user, "FLOWER_UNAUTHENTICATED_API": "true"}
    process = Process("flower", [*command, "--address=127.0.0.1"], env, tmp_path, tmp_path / "flower.log").start()
    running.processes["flower"] = process
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        running.wait(lambda: _answers(client), "Flower answers", process)
        yield client
    assert isinstance(process.process, subprocess.Popen)
    stop(process.process)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthcheck").status_code == 200
    except httpx.TransportError:
        return False


def test_it_shows_workers_and_tasks_and_no_secret(running: Platform, flower: httpx.Client, tmp_path: Path) -> None:
    def workers() -> set[str]:
        return {row["hostname"] for row in flower.get("/workers", params={"json": "1"}).json()["data"]}

    running.consuming(*(running.processes[name] for name in ("one", "two")))
    running.wait(lambda: workers() >= {"fast@one", "media@two"}, "Flower sees the workers of both tiers")
    app = make_app(BusSettings(_env_file=None, broker_url=SecretStr(running.broker_url)))

    def task(task_id: str) -> dict[str, Any]:
        found = flower.get(f"/api/task/info/{task_id}")
        return dict(found.json()) if found.status_code == 200 else {}

    try:
        # Events are on once Flower asked for them: the first task, or its beginning, may have been before.
        ids: list[str] = []

        def shown() -> dict[str, Any]:
            ids.append(send(app, chores.FAIL, {"number": 7, "code": SECRET}))
            known = [task(one) for one in ids]
            return next((made for made in known if made.get("name") and made.get("state") == "FAILURE"), {})

        seen: Any = running.wait(shown, "Flower shows the task")
        ended = send(app, chores.STUDIO, {"number": 7, "seconds": 0, "folder": str(tmp_path)})
        running.wait(lambda: task(ended).get("state") == "SUCCESS", "and those of the media tier")
    finally:
        publisher_of(app).close()
    assert seen["name"] == chores.FAIL.name
    assert seen["worker"] == "fast@one"
    assert seen["kwargs"] == "{'number': 7, 'code': '***'}"
    assert SECRET not in flower.get("/api/tasks").text
    assert SECRET not in running.processes["flower"].said()
