"""Failed tasks over HTTP: looked through, done again, put aside, one or many at once."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import httpx
import pytest

from control.bus import names
from control.ledger import streams
from tests.api_server import Api, problem
from tests.conftest import API_KEY
from tests.failed import failed, part, waiting

KEY = "key:" + hashlib.sha256(API_KEY.encode()).hexdigest()[:8]
TASK = names.HANDLE_FACT.name


def test_a_failed_task_with_all_that_is_known_of_it(api: Api) -> None:
    row = failed(api.ledger, names.PART_DONE, {"replay_id": "rep_1", "part": "audio"}, code="not-found")
    (listed,) = api.client.get("/failed-tasks").json()["items"]
    assert {name: listed[name] for name in ("id", "task_id", "task", "queue", "key", "reason", "code", "state")} == {
        "id": row.id,
        "task_id": row.task_id,
        "task": "pipelines.part_done",
        "queue": "default",
        "key": "rep_1",
        "reason": "failed",
        "code": "not-found",
        "state": "open",
    }
    assert not {"payload", "traceback", "actions"} & listed.keys()
    shown = api.client.get(f"/failed-tasks/{row.id}").json()
    assert shown.items() >= listed.items()
    assert shown["payload"] == {"replay_id": "rep_1", "part": "audio"}
    assert shown["traceback"].startswith("Traceback")
    assert shown["actions"] == []
    problem(api.client.get("/failed-tasks/fail_none"), 404, "not-found")


def test_filters(api: Api) -> None:
    fact, part_done = failed(api.ledger), failed(api.ledger, names.PART_DONE, {"replay_id": "r"}, reason="poison")
    gone = failed(api.ledger)
    api.client.post(f"/failed-tasks/{gone.id}/discard")

    def ids(**query: str) -> set[str]:
        return {item["id"] for item in api.client.get("/failed-tasks", params=query).json()["items"]}

    assert ids() == ids(state="open") == {fact.id, part_done.id}
    assert ids(task=TASK) == {fact.id}
    assert ids(reason="poison") == {part_done.id}
    assert ids(state="discarded") == {gone.id}
    assert ids(state="all", task=TASK) == {fact.id, gone.id}
    assert ids(task=TASK, reason="poison") == set()
    for query in ({"state": "lost"}, {"reason": "x"}, {"limit": "0"}, {"task": "\0"}, {"after": "\0"}):
        problem(api.client.get("/failed-tasks", params=query), 422, "request-invalid")


def test_pages_are_complete_while_others_fail(api: Api) -> None:
    expected = {failed(api.ledger).id for _ in range(7)}
    found: list[str] = []
    after = None
    while True:
        page = api.client.get("/failed-tasks", params={"limit": 3, **({"after": after} if after else {})})
        found += [item["id"] for item in page.json()["items"]]
        after = page.json()["next"]
        assert ("next" in page.links) == (after is not None)
        if after is None:
            break
        failed(api.ledger)  # newer ones shift nothing
    assert set(found) == expected
    assert found == sorted(found, reverse=True)


def test_replayed_it_is_sent_once_and_the_relay_is_woken(api: Api) -> None:
    row = failed(api.ledger)
    before = len(api.woken)
    answer = api.client.post(f"/failed-tasks/{row.id}/replay", headers={"X-Actor": "ann@example.com"})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/tasks/{row.task_id}"
    assert (answer.json()["state"], answer.json()["replayed_as"]) == ("replayed", row.task_id)
    assert len(api.woken) == before + 1
    assert api.client.post(f"/failed-tasks/{row.id}/replay").status_code == 202
    assert len(waiting(api.ledger)) == 1
    (action,) = api.client.get(f"/failed-tasks/{row.id}").json()["actions"]
    assert (action["action"], action["actor"]) == ("replayed", f"{KEY} ann@example.com")
    assert api.client.get(answer.headers["location"]).json()["state"] == "PENDING"
    problem(api.client.post(f"/failed-tasks/{row.id}/discard"), 409, "conflict")
    problem(api.client.post("/failed-tasks/fail_none/replay"), 404, "not-found")


def test_many_replays_at_once_send_once(api: Api) -> None:
    row = failed(api.ledger)
    start = threading.Barrier(8)
    found: list[int] = []

    def replay(place: str, body: Any) -> None:
        start.wait()
        answer = httpx.post(f"{api.client.base_url}{place}", headers={"X-API-Key": API_KEY}, json=body, timeout=20)
        found.append(answer.status_code)

    calls = [(f"/failed-tasks/{row.id}/replay", None), ("/failed-tasks/replay", {"all": True})] * 4
    threads = [threading.Thread(target=replay, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [202] * 8
    assert len(waiting(api.ledger)) == 1
    assert len(api.client.get(f"/failed-tasks/{row.id}").json()["actions"]) == 1


def test_discarded_with_a_note(api: Api) -> None:
    row = failed(api.ledger)
    for note in ("Refunded by hand.", "Once more."):
        answer = api.client.post(f"/failed-tasks/{row.id}/discard", json={"note": note})
        assert (answer.status_code, answer.json()["state"]) == (200, "discarded")
    (action,) = api.client.get(f"/failed-tasks/{row.id}").json()["actions"]
    assert (action["action"], action["actor"], action["note"]) == ("discarded", KEY, "Refunded by hand.")
    problem(api.client.post(f"/failed-tasks/{row.id}/replay"), 409, "conflict")
    other = failed(api.ledger)
    for body in ({"note": "n" * 1001}, {"note": "\0"}, {"surprise": 1}):
        problem(api.client.post(f"/failed-tasks/{other.id}/discard", json=body), 422, "request-invalid")
    assert api.client.get(f"/failed-tasks/{other.id}").json()["state"] == "open"


# --- who did it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["X-API-Key", "Bearer", "Basic"])
def test_the_audit_names_key_and_user(api: Api, by: str) -> None:
    auth = httpx.BasicAuth("anyone", API_KEY) if by == "Basic" else None
    key = {"X-API-Key": {"X-API-Key": API_KEY}, "Bearer": {"Authorization": f"Bearer {API_KEY}"}, "Basic": {}}[by]
    for name in ("ann", "ann b.", "安 (ops)", "n" * 128):
        row = failed(api.ledger)
        headers = {b"X-Actor": name.encode(), **{header.encode(): value.encode() for header, value in key.items()}}
        done = api.stranger.post(
            f"/failed-tasks/{row.id}/discard", headers=headers, auth=auth or httpx.USE_CLIENT_DEFAULT
        )
        assert done.status_code == 200, done.text
        (action,) = api.client.get(f"/failed-tasks/{row.id}").json()["actions"]
        assert action["actor"] == f"{KEY} {name}"


@pytest.mark.parametrize("place", ["replay", "discard", "{id}/replay", "{id}/discard"])
def test_a_name_that_is_none_is_refused(api: Api, place: str) -> None:
    row = failed(api.ledger)
    where = f"/failed-tasks/{place.format(id=row.id)}"
    body = None if "{" in place else {"all": True}
    for name in (b"", b"\xc2\xa0", b"n" * 129, b"a\tb", "a\u200eb".encode(), b"\xff"):
        answer = api.client.post(where, headers={b"X-Actor": name}, json=body)
        document = problem(answer, 422, "request-invalid")
        assert document["errors"][0]["pointer"] == "header/X-Actor", name
    assert api.client.get(f"/failed-tasks/{row.id}").json()["state"] == "open"


# --- many -------------------------------------------------------------------------------------------------------------


def test_many_are_replayed_and_those_refused_are_named(api: Api) -> None:
    rows = [failed(api.ledger) for _ in range(3)]
    made = part(api.ledger, "s", "pictures", state="done")
    kept = failed(api.ledger, reason="poison")
    before = len(api.woken)
    answer = api.client.post("/failed-tasks/replay", json={"reason": "failed"}, headers={"X-Actor": "ann"})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["count"], set(found["done"]), found["next"]) == (3, {row.id for row in rows}, None)
    (refused,) = found["refused"]
    assert (refused["id"], refused["code"]) == (made.id, "conflict")
    assert "was made since" in refused["detail"]
    assert len(api.woken) == before + 1
    still = {item["id"] for item in api.client.get("/failed-tasks").json()["items"]}
    assert still == {made.id, kept.id}
    assert api.client.get(f"/failed-tasks/{rows[0].id}").json()["actions"][0]["actor"] == f"{KEY} ann"


def test_many_are_done_in_portions(api: Api) -> None:
    rows = [failed(api.ledger) for _ in range(5)]
    after, done = None, []
    for expected in (2, 2, 1):
        body = {"all": True, "limit": 2, "note": "of no use", **({"after": after} if after else {})}
        answer = api.client.post("/failed-tasks/discard", json=body)
        assert answer.status_code == 200
        assert answer.json()["count"] == expected
        done += answer.json()["done"]
        after = answer.json()["next"]
    assert after is None
    assert set(done) == {row.id for row in rows}
    assert api.client.get(f"/failed-tasks/{rows[0].id}").json()["actions"][0]["note"] == "of no use"
    assert waiting(api.ledger) == []


@pytest.mark.parametrize(
    "body",
    [{}, {"all": False}, {"limit": 5}, {"all": True, "limit": 1001}, {"reason": "x"}, {"all": True, "ids": []}, None],
)
@pytest.mark.parametrize("what", ["replay", "discard"])
def test_many_have_to_be_named(api: Api, body: Any, what: str) -> None:
    row = failed(api.ledger)
    problem(api.client.post(f"/failed-tasks/{what}", json=body), 422, "request-invalid")
    assert api.client.get(f"/failed-tasks/{row.id}").json()["state"] == "open"


def test_a_part_of_a_failed_replay_has_the_replay_made_again(api: Api) -> None:
    row = part(api.ledger, "s", "chunk", state="failed", of_replay="failed")
    answer = api.client.post(f"/failed-tasks/{row.id}/replay")
    assert answer.status_code == 202
    assert "location" not in answer.headers
    assert api.client.get("/streams/s").json()["replay"]["state"] == "waiting"
    assert api.client.get(f"/tasks/{row.task_id}").json()["failure"]["state"] == "replayed"
    with api.ledger.write() as session:
        streams.cancel(session, "s")
    other = part(api.ledger, "other", "chunk", state="cancelled", of_replay="cancelled")
    problem(api.client.post(f"/failed-tasks/{other.id}/replay"), 409, "conflict")
    assert api.client.get("/streams/other").json()["replay"]["state"] == "cancelled"
