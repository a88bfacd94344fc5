"""API keys: without one only health answers, and playback links."""

from __future__ import annotations

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from control.api.app import create_app
from control.errors import ConfigurationError
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore
from tests.api_server import Api, problem, serving
from tests.conftest import API_KEY


def test_without_a_key_only_health_answers(api: Api) -> None:
    """Every route there is, with every method it takes."""
    asked = 0
    for context in iter_route_contexts(api.app.routes):
        path = str(context.path)
        for method in context.methods or ():
            place = path.replace("{stream_id}", "s").replace("{link}", "l").replace("{path:path}", "master.m3u8")
            answer = api.stranger.request(method, place.replace("{version}", "v").replace("{name}", "n"))
            asked += 1
            if path in ("/healthz", "/readyz"):
                assert answer.status_code == 200, path
            elif path.startswith("/play/"):
                assert answer.status_code == 403, (method, path)
            elif path.startswith("/webhooks/payment/"):
                assert answer.status_code == 404, (method, path)  # a gateway there is would ask for its signature
            else:
                assert answer.status_code == 401, (method, path)
                assert "Bearer" in answer.headers["www-authenticate"]
                assert "Basic" in answer.headers["www-authenticate"]
    assert asked >= 17
    for place in ("/docs", "/openapi.json", "/metrics", "/nothing", "/healthz/", "/"):
        problem(api.stranger.get(place), 401, "key-required")


def test_a_key_may_come_in_three_ways(api: Api) -> None:
    get = api.stranger.get
    assert get("/streams", headers={"Authorization": f"Bearer {API_KEY}"}).status_code == 200
    assert get("/streams", headers={"X-API-Key": API_KEY}).status_code == 200
    assert get("/docs", auth=("anyone", API_KEY)).status_code == 200
    for wrong in (API_KEY[:-1], API_KEY + "x", API_KEY.upper()):
        problem(get("/streams", headers={"X-API-Key": wrong}), 401, "key-required")


def test_another_site_cannot_use_credentials_a_browser_stored(api: Api) -> None:
    stream_id, _ = api.ended()
    place = f"/streams/{stream_id}/cancel"
    foreign = api.stranger.post(place, auth=("", API_KEY), headers={"Sec-Fetch-Site": "cross-site"})
    problem(foreign, 403, "cross-site-refused")
    own = api.stranger.post(place, auth=("", API_KEY), headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 202


def test_an_api_without_a_signing_secret_does_not_start(
    settings: Settings, ledger: Ledger, local_store: LocalStore
) -> None:
    settings.api.signing_secret = None
    with pytest.raises(ConfigurationError, match="SIGNING_SECRET"):
        create_app(settings, ledger, local_store)


def test_an_api_without_keys_opens_to_nobody(settings: Settings, ledger: Ledger, local_store: LocalStore) -> None:
    settings.api.keys = []
    with serving(create_app(settings, ledger, local_store)) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        for headers in ({}, {"X-API-Key": ""}, {"Authorization": "Bearer x"}):
            assert httpx.get(f"{url}/streams", headers=headers).status_code == 401
