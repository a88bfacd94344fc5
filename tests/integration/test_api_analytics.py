"""Events come in and figures go out over HTTP, embedded from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from control.api.app import create_app
from control.bus.app import NOTIFY, PIPELINES
from control.ledger import analytics
from control.settings import Settings
from control.storage import open_store
from tests.api_server import Api, problem, serving
from tests.bus import bus, until
from tests.conftest import API_KEY
from tests.viewers import asked_for, sell


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """The whole back end, and its API."""
    monkeypatch.setattr(analytics, "AGGREGATE_AFTER_SECONDS", 0)
    with bus(settings, modules=(PIPELINES, NOTIFY)) as running:
        app = create_app(settings, running.ledger, open_store(settings.storage), wake=running.relay.wake)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with serving(app) as url, httpx.Client(base_url=url, headers=headers, timeout=10) as made:
            made.ledger = running.ledger  # type: ignore[attr-defined]
            yield made


def event(number: int, at: datetime, viewer_id: str = "v1", kind: str = "heartbeat") -> dict[str, Any]:
    return {"id": f"e-{number}", "viewer_id": viewer_id, "kind": kind, "at": at.isoformat()}


def post(client: httpx.Client, stream_id: str, *events: dict[str, Any]) -> httpx.Response:
    return client.post(f"/streams/{stream_id}/analytics/events", json={"events": list(events)})


def test_from_players_to_figures_and_the_report(client: httpx.Client) -> None:
    stream_id = client.post("/streams", json={"title": "Bowls", "seller_id": "kiln"}).json()["id"]
    path = f"/streams/{stream_id}/analytics"
    assert client.get(path).json() == {"stream_id": stream_id, "as_of": None, "up_to_date": True, "figures": None}
    at = datetime.now(UTC)
    batch = [event(1, at, kind="join"), event(2, at + timedelta(seconds=30)), event(3, at, "v2")]
    answer = post(client, stream_id, *batch)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "duplicates": 0})
    assert post(client, stream_id, *batch, event(4, at)).json() == {"accepted": 1, "duplicates": 3}
    ledger = client.ledger  # type: ignore[attr-defined]
    sell(ledger, "o1", 0, 900_00, stream_id=stream_id, begin=at)

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = client.get(path).json()
        return found

    until(lambda: (found := shown())["figures"] and found["up_to_date"] and found["figures"]["orders"], "counted")
    figures = shown()["figures"]
    assert (figures["viewers"], figures["orders"], figures["conversion"]) == (2, 1, 0.5)
    assert figures["best_moments"][0]["revenue_minor"] == 900_00

    day = at.astimezone(ZoneInfo("Pacific/Auckland")).date()
    about = f"/reports/daily/{day}?zone=Pacific/Auckland"
    problem(client.get(about), 404, "not-found")
    assert client.post(about).status_code == 202
    until(lambda: client.get(f"{about}&seller_id=kiln").status_code == 200, "the report is made")
    report = client.get(f"{about}&seller_id=kiln").json()
    assert (report["figures"]["orders"], report["figures"]["viewers"]) == (1, 2)
    sheet = client.get(report["csv_url"])
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    assert "sale," in sheet.text
    assert client.get(client.get(about).json()["csv_url"]).status_code == 200


def test_each_event_is_looked_at(api: Api) -> None:
    stream_id = api.stream()
    at = datetime.now(UTC)
    good = event(1, at)
    for bad, place in (
        ({**good, "id": "a b"}, "id"),
        ({**good, "kind": "stay"}, "kind"),
        ({**good, "at": "2026-11-24T12:00:00"}, "at"),  # of no zone
        ({**good, "at": (at + timedelta(minutes=6)).isoformat()}, "at"),
        ({**good, "at": (at - timedelta(minutes=6)).isoformat()}, "at"),
        ({**good, "viewer_id": ""}, "viewer_id"),
        ({**good, "email": "a@example.com"}, "email"),
    ):
        document = problem(post(api.client, stream_id, good, bad), 422, "request-invalid")
        assert [error["pointer"] for error in document["errors"]] == [f"#/events/1/{place}"]
    problem(post(api.client, stream_id), 422, "request-invalid")
    problem(post(api.client, stream_id, *[event(number, at) for number in range(1001)]), 422, "request-invalid")
    assert asked_for(api.ledger) == 0  # nothing of them was kept
    assert post(api.client, stream_id, *[event(number, at) for number in range(1000)]).json()["accepted"] == 1000


def test_what_is_not_there(api: Api) -> None:
    problem(post(api.client, "nobody", event(1, datetime.now(UTC))), 404, "not-found")
    problem(api.client.get("/streams/nobody/analytics"), 404, "not-found")
    problem(api.client.get("/reports/daily/2026-01-01"), 404, "not-found")
    problem(api.client.get("/reports/daily/2026-01-01/csv?seller_id=kiln"), 404, "not-found")
    problem(api.client.get("/reports/daily/2026-02-30"), 422, "request-invalid")
    document = problem(api.client.post("/reports/daily/2026-01-01?zone=Mars/Olympus"), 422, "request-invalid")
    assert document["errors"][0]["pointer"] == "query/zone"
    assert api.stranger.get("/reports/daily/2026-01-01").status_code == 401
