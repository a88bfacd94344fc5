"""docker/health.py: what an image's health check runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.bus.health import HealthServer, Pulse
from tests.services import free_port

SCRIPT = Path(__file__).parents[2] / "docker" / "health.py"


class _Old(Pulse):
    @property
    def silent_seconds(self) -> float:
        return 61.0


@pytest.fixture(params=[Pulse, _Old])
def worker(request: pytest.FixtureRequest) -> Iterator[tuple[HealthServer, bool]]:
    """A worker's own server, of one that consumes and of one that does not."""
    server = HealthServer("127.0.0.1", 0, request.param())
    server.start()
    yield server, request.param is Pulse
    server.stop()


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


def test_it_says_what_the_worker_says(worker: tuple[HealthServer, bool]) -> None:
    server, alive = worker
    said = ask(str(server.port))
    assert said.returncode == (0 if alive else 1)
    assert said.stdout.startswith("ok" if alive else "it does not consume")


def test_another_path_and_nobody_there(worker: tuple[HealthServer, bool]) -> None:
    server, _ = worker
    assert ask(str(server.port), "/metrics").returncode == 0
    assert ask(str(server.port), "/nowhere").returncode == 1
    nobody = ask(str(free_port()))
    assert nobody.returncode == 1
    assert "refused" in nobody.stdout
    assert not nobody.stderr
