"""Every error is a problem document (RFC 9457) and gives nothing away."""

from __future__ import annotations

from typing import Any

import pytest

from control.ledger import streams
from tests.api_server import Api, problem


def test_unknown_things_are_problems(api: Api) -> None:
    for method, place in [
        ("GET", "/streams/nope"),
        ("GET", "/streams/nope/events"),
        ("POST", "/streams/nope/cancel"),
        ("POST", "/streams/nope/retry"),
        ("GET", "/nothing/here"),
    ]:
        problem(api.client.request(method, place), 404, "not-found")
    problem(api.client.post("/streams/nope/end", json={"recording": "a.mp4"}), 404, "not-found")
    wrong = api.client.delete("/streams")
    problem(wrong, 405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"] or "GET" in wrong.headers["allow"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"#/title"}),
        ({"title": "   "}, {"#/title"}),
        ({"title": 3}, {"#/title"}),
        ({"title": "T" * 301}, {"#/title"}),
        ({"title": "T", "titel": "T"}, {"#/titel"}),
        ({"title": "T", "id": "../x", "seller_id": "a b"}, {"#/id", "#/seller_id"}),
        ([], {"#"}),
    ],
)
def test_a_body_that_does_not_fit_names_its_fields(api: Api, body: Any, pointers: set[str]) -> None:
    document = problem(api.client.post("/streams", json=body), 422, "request-invalid")
    assert {entry["pointer"] for entry in document["errors"]} == pointers
    assert all(entry["detail"] for entry in document["errors"])


def test_broken_json_and_bad_queries_are_problems_too(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    document = problem(api.client.post("/streams", content=b'{"title": ', headers=headers), 422, "request-invalid")
    assert document["errors"][0]["pointer"] == "#"
    document = problem(api.client.get("/streams", params={"limit": 0}), 422, "request-invalid")
    assert document["errors"][0]["pointer"] == "query/limit"


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_body_is_refused(api: Api, announced: bool) -> None:
    block = b" " * 65536
    content = block * 32 if announced else (block for _ in range(32))
    answer = api.client.post("/streams", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 413, "body-too-large")


def test_a_bug_tells_the_client_nothing_and_the_log_everything(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("password=hunter2")

    monkeypatch.setattr(streams, "page", broken)
    answer = api.client.get("/streams", headers={"X-Request-ID": "asked-by-me"})
    document = problem(answer, 500, "internal-error")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert document["request_id"] == answer.headers["x-request-id"] == "asked-by-me"
    mine = [record for record in caplog.records if getattr(record, "request_id", "") == "asked-by-me"]
    assert mine
    assert "hunter2" in (mine[0].exc_text or str(mine[0].exc_info))
