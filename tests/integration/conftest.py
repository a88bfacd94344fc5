"""Fixtures of the integration tests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control.api.app import create_app
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests.api_server import Api, serving
from tests.conftest import API_KEY
from tests.hls_clips import Hls, build


@pytest.fixture
def api(settings: Settings, ledger: Ledger, local_store: LocalStore) -> Iterator[Api]:
    woken: list[float] = []
    app = create_app(settings, ledger, local_store, wake=lambda: woken.append(time.monotonic()))
    with serving(app) as url, httpx.Client(base_url=url, timeout=10) as stranger:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
            yield Api(app, ledger, local_store, settings, client, stranger, woken)


@pytest.fixture(scope="module")
def correct(tmp_path_factory: pytest.TempPathFactory) -> Hls:
    """HLS that breaks no rule."""
    return build(tmp_path_factory.mktemp("hls") / "correct")


@pytest.fixture
def hls(correct: Hls, tmp_path: Path) -> Hls:
    """A copy of it to be broken."""
    folder = tmp_path / "hls"
    shutil.copytree(correct.folder, folder)
    return Hls(folder, correct.plan, dict(correct.video), dict(correct.audio))
