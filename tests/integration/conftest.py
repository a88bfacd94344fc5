"""Fixtures of the integration tests."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from control.api.app import create_app
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests.api_server import Api, serving
from tests.conftest import API_KEY


@pytest.fixture
def api(settings: Settings, ledger: Ledger, local_store: LocalStore) -> Iterator[Api]:
    woken: list[float] = []
    app = create_app(settings, ledger, local_store, wake=lambda: woken.append(time.monotonic()))
    with serving(app) as url, httpx.Client(base_url=url, timeout=10) as stranger:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
            yield Api(app, ledger, local_store, settings, client, stranger, woken)
