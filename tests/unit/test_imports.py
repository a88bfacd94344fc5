"""Who imports whom: the contracts hold, and they can be broken."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.house.hygiene import ROOT
from tests.house.installed import PACKAGES
from tests.services import tool


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their contracts, free to be spoilt."""
    copy = tmp_path_factory.mktemp("house") / "a copy"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("node_modules", "__pycache__", "static")
        )
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint_imports(house: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [tool("lint-imports"), "--no-cache", *arguments],
        cwd=house,
        env={"PYTHONPATH": str(house), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_import_rule_is_kept(house: Path) -> None:
    status, output = lint_imports(house)
    assert status == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("control-alone", "control/bus/names.py", "import media_worker.ffmpeg"),
        ("control-alone", "control/api/auth.py", "import pipelines.plan"),
        ("control-alone", "control/checks/own.py", "import av"),
        ("foundations", "control/storage/content.py", "from control.api import auth"),
        ("foundations", "control/ledger/base.py", "import fastapi"),
        ("gateways-low", "control/gateways/base.py", "import control.ledger.base"),
        ("fake-gateway", "control/api/auth.py", "import control.fake_ecpay.trades"),
        ("storage-low", "control/errors.py", "import control.ledger.models"),
        ("ledger-wakes-nobody", "control/ledger/base.py", "import celery"),
        ("settings-lowest", "control/settings.py", "import control.storage.local"),
        ("api-and-page", "control/web/pages.py", "import notify_worker"),
        ("pipelines", "pipelines/plan.py", "import numpy"),
        ("pipelines", "pipelines/plan.py", "def f():\n    from media_worker import probe"),
        ("media-worker", "media_worker/scratch.py", "import control.ledger.engine"),
        ("media-worker", "media_worker/scratch.py", "from fastapi import FastAPI"),
        ("media-worker", "control/bus/task.py", "import sqlalchemy"),
        ("notify-worker", "notify_worker/__init__.py", "import av"),
    ],
)
def test_a_forbidden_import_is_found(house: Path, contract: str, module: str, line: str) -> None:
    path = house / module
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        status, output = lint_imports(house, "--contract", contract)
    finally:
        path.write_text(before)
    assert status == 1, output
    assert "1 broken" in output
    assert module.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in output


def test_every_package_has_a_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sources = {module for contract in contracts for module in contract.get("source_modules", contract.get("layers"))}
    assert set(PACKAGES) <= sources
    assert {f"control.{path.stem}" for path in (ROOT / "control").iterdir() if _is_module(path)} <= sources | {
        "control.cli"  # the top: it may know everything of control
    }


def _is_module(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
