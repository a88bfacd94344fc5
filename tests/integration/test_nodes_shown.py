"""Media nodes as the API, the command line and the doctor show them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr
from sqlalchemy import update

from control.checks import Status, own
from control.cli.nodes import nodes as command
from control.ledger import nodes
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.node_models import Node
from control.settings import BusSettings, LedgerSettings, Settings
from tests.api_server import Api
from tests.ledgers import migrated
from tests.nodes import CPU, capability, node

NVENC = capability("h264_nvenc")
DEAD = capability("h264_vaapi", usable=False, reason="No VA display found", device="vaapi:/dev/dri/renderD128")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Three nodes: one that is alive, one that is lost, one that ended."""
    url = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    made = migrated(url)
    _fill(made)
    monkeypatch.setenv("AFTERLIVE_DATABASE_URL", url)
    yield made
    made.close()


def _fill(ledger: Ledger) -> None:
    with ledger.write() as session:
        nodes.heard(session, node("gpu-1", NVENC, DEAD, CPU, refuses_cpu=True), "gpu-1-4711")
        nodes.heard(session, node("cpu-1", CPU), "cpu-1-12")
        nodes.heard(session, node("cpu-2", CPU), "cpu-2-13")
        nodes.left(session, "cpu-2-13")
    with ledger.write() as session:
        hour_ago = now() - timedelta(hours=1)
        session.execute(update(Node).where(Node.name == "cpu-1-12").values(heard_at=hour_ago))


def test_over_http(api: Api) -> None:
    assert api.client.get("/nodes").json() == {"items": []}
    _fill(api.ledger)
    items = {item["name"]: item for item in api.client.get("/nodes").json()["items"]}
    assert {name: item["state"] for name, item in items.items()} == {
        "gpu-1-4711": "alive", "cpu-1-12": "lost", "cpu-2-13": "ended",
    }  # fmt: skip
    gpu = items["gpu-1-4711"]
    assert (gpu["host"], gpu["queues"]) == ("gpu-1", ["low_priority", "low_priority.nvenc"])
    assert (gpu["encoders"], gpu["refuses_cpu"]) == (["h264_nvenc", "libx264"], True)
    assert [can["reason"] for can in gpu["capabilities"]] == [None, "No VA display found", None]


@pytest.mark.usefixtures("fleet")
def test_on_the_command_line() -> None:
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0, done.output
    head, *lines = done.output.splitlines()
    assert head.split() == ["NODE", "STATE", "HEARD", "QUEUES", "ENCODERS"]
    alive = next(line for line in lines if line.startswith("gpu-1-4711 "))
    assert "alive" in alive
    assert alive.rstrip().endswith("h264_nvenc, libx264 (refuses its processors)")
    assert lines[-1] == ("gpu-1-4711: h264_vaapi (all) on vaapi:/dev/dri/renderD128 does not work: No VA display found")
    done = CliRunner().invoke(command, ["--json"])
    assert {item["name"] for item in json.loads(done.output)["items"]} == {"gpu-1-4711", "cpu-1-12", "cpu-2-13"}


def test_on_the_command_line_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    migrated(url).close()
    monkeypatch.setenv("AFTERLIVE_DATABASE_URL", url)
    done = CliRunner().invoke(command, [])
    assert (done.exit_code, "There are none" in done.output) == (0, True)


def seen(settings: Settings) -> dict[str, tuple[Status, str]]:
    return {check.name: (check.status, check.detail) for check in own._nodes(settings)}


def test_by_the_doctor(fleet: Ledger, settings: Settings) -> None:
    bus = BusSettings(_env_file=None, broker_url=SecretStr("amqp://nobody@127.0.0.1:1//"))
    ledger = LedgerSettings(_env_file=None, url=fleet.url)
    made = settings.model_copy(update={"bus": bus, "ledger": ledger})
    found = seen(made)
    assert found["media nodes"] == (Status.OK, "1 alive: h264_nvenc on 1, libx264 on 1")
    assert found["media nodes lost"] == (Status.WARN, "nothing was heard of cpu-1-12")
    with fleet.write() as session:
        nodes.left(session, "gpu-1-4711")
    assert seen(made)["media nodes"] == (Status.WARN, "none is alive: no replay is made")
    assert seen(made.model_copy(update={"bus": BusSettings(_env_file=None)})) == {}
    gone = LedgerSettings(_env_file=None, url="sqlite:////nowhere/at/all.sqlite")
    assert seen(made.model_copy(update={"ledger": gone})) == {}
