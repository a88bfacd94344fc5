"""docker/autoscale.py: how many media workers, asked of a real Prometheus, told to a stand-in for Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import services
from tests.scripts import load

SCRIPT = Path(__file__).parents[2] / "docker" / "autoscale.py"
autoscale = load(SCRIPT)


@pytest.mark.parametrize(
    ("running", "age", "backlog", "number"),
    [
        (2, 0, 0, 1),  # nothing waits: the least there may be
        (2, 60, 0, 2),
        (2, 65, 0, 2),  # within the tolerance
        (2, 90, 0, 3),
        (2, 120, 0, 4),
        (0, 61, 0, 1),
        (0, 120, 0, 2),  # of none, it is as if there were one
        (3, 600, 0, 6),  # as many as may be
        (1, 0, 15_000, 1),
        (1, 0, 15_001, 2),
        (1, 90, 45_000, 3),  # the larger
        (4, 90, 15_000, 6),
    ],
)
def test_as_many_as_the_work_needs(running: int, age: float, backlog: float, number: int) -> None:
    assert autoscale.wanted(running, age, backlog, autoscale.Limits(most=6)) == number


def test_it_grows_at_once_and_shrinks_slowly() -> None:
    slowly = autoscale.Slowly(300)
    # Seconds, running, wanted → next.
    story = [
        (0, 1, 4, 4),
        (15, 4, 1, 4),
        (299, 4, 1, 4),
        (301, 4, 1, 3),
        (316, 3, 1, 3),  # one at a time
        (400, 3, 3, 3),  # needed again: from now on it counts anew
        (601, 3, 1, 3),
        (701, 3, 1, 2),
        (702, 2, 5, 5),
    ]
    for at, running, number, expected in story:
        assert slowly.next(running, number, float(at)) == expected, at


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that was told what waits: a part for 130 s, 20,000 frames."""
    program = shutil.which("prometheus") or pytest.fail("no Prometheus here: python -m tests.house.system prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), services.free_port()
    (folder / "rules.yml").write_text(
        "groups: [{name: told, interval: 200ms, rules: ["
        "{record: afterlive_parts_waiting_seconds, expr: vector(130)},"
        "{record: afterlive_backlog_frames, expr: vector(20000)}]}]\n"
    )
    (folder / "prometheus.yml").write_text("rule_files: [rules.yml]\n")
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + 30
        while not _told(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < give_up, "Prometheus does not answer"
            time.sleep(0.1)
        yield url
    finally:
        services.stop(process)


def _told(url: str) -> bool:
    try:
        found = httpx.get(f"{url}/api/v1/query", params={"query": autoscale.BACKLOG})
    except httpx.TransportError:
        return False
    # Until it has read its data, it answers 503.
    return found.is_success and bool(found.json()["data"]["result"])


_DOCKER = """#!/bin/sh
echo "$@" >> calls
case "$*" in
    *" ps "*) printf 'one\\ntwo\\n';;
    *" up "*) [ -e broken ] && { echo "no such service" >&2; exit 1; };;
esac
exit 0
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a `docker` that writes down what it is told, and says that two run."""
    (tmp_path / "docker").write_text(_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    return tmp_path


def look(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", str(SCRIPT), "media-cpu", "--file=compose.yaml", "--profile=cpu", "--once"]
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_it_asks_prometheus_and_tells_compose(docker: Path, prometheus: str) -> None:
    done = look(docker, f"--prometheus={prometheus}", "--most=8")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "media-cpu: 2 → 5\n"  # two, 130 s instead of 60
    assert (docker / "calls").read_text().splitlines() == [
        "compose --file=compose.yaml --profile=cpu ps --quiet media-cpu",
        "compose --file=compose.yaml --profile=cpu up --detach --no-recreate --no-deps --scale=media-cpu=5 media-cpu",
    ]


def test_what_has_no_value_is_nothing(prometheus: str) -> None:
    assert autoscale.ask(prometheus, "max(nobody_tells_of_this)") == 0.0
    assert autoscale.ask(prometheus, "vector(1) / 0") == 0.0


@pytest.mark.parametrize("trouble", ["nobody there", "no Prometheus", "docker fails"])
def test_what_it_cannot_ask_it_leaves_as_it_is(docker: Path, trouble: str, request: pytest.FixtureRequest) -> None:
    url = f"http://127.0.0.1:{services.free_port()}"
    if trouble == "docker fails":
        url = request.getfixturevalue("prometheus")
        (docker / "broken").touch()
    if trouble == "no Prometheus":
        url = f"{url}\n"
    done = look(docker, f"--prometheus={url}")
    assert done.returncode == 0
    assert "media-cpu stays as it is: " in done.stderr
    assert "Traceback" not in done.stderr
