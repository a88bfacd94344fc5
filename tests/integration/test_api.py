"""Streams over HTTP, on a real ledger and a real port."""

from __future__ import annotations

import threading

import httpx
import pytest

from control.ledger import streams
from tests.api_server import Api, problem
from tests.conftest import API_KEY
from tests.replays import advance


def test_a_stream_begins_ends_and_has_a_replay(api: Api) -> None:
    created = api.client.post("/streams", json={"title": "  Ceramics ", "seller_id": "seller-42", "id": "live-1"})
    assert created.status_code == 201
    assert created.headers["location"] == "/streams/live-1"
    assert created.json()["title"] == "Ceramics"
    assert created.json()["replay"] is None
    assert created.json()["player_url"] is None

    before = len(api.woken)
    ended = api.client.post("/streams/live-1/end", json={"recording": "a.mp4"})
    assert ended.status_code == 202
    assert ended.headers["location"] == "/streams/live-1"
    assert ended.json()["replay"]["id"]
    assert ended.json()["ended_at"]
    assert len(api.woken) == before + 1

    shown = api.client.get(ended.headers["location"])
    assert shown.status_code == 200
    assert shown.json()["replay"]["id"] == ended.json()["replay"]["id"]
    assert shown.json()["player_url"].startswith(f"{api.client.base_url}/play/live-1/")
    assert shown.json()["playback_url"] == shown.json()["player_url"] + "master.m3u8"


def test_ending_twice_is_the_same_replay(api: Api) -> None:
    stream_id, first = api.ended()
    for body in ({"recording": "a.mp4"}, None):
        again = api.client.post(f"/streams/{stream_id}/end", json=body)
        assert again.status_code == 202
        assert again.json()["replay"]["id"] == first["replay"]["id"]
        assert again.json()["ended_at"] == first["ended_at"]


def test_many_ends_at_once_are_one_replay(api: Api) -> None:
    stream_id = api.stream(recording="a.mp4")
    found: list[tuple[int, str]] = []

    def end() -> None:
        answer = httpx.post(
            f"{api.client.base_url}/streams/{stream_id}/end", headers={"X-API-Key": API_KEY}, timeout=20
        )
        found.append((answer.status_code, answer.json().get("replay", {}).get("id", answer.text)))

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert {status for status, _ in found} == {202}
    assert len({replay for _, replay in found}) == 1


def test_a_recording_named_at_the_start_need_not_be_named_at_the_end(api: Api) -> None:
    stream_id = api.stream(recording="a.mp4")
    assert api.client.post(f"/streams/{stream_id}/end").status_code == 202


def test_a_stream_without_a_recording_cannot_end(api: Api) -> None:
    stream_id = api.stream()
    problem(api.client.post(f"/streams/{stream_id}/end"), 409, "conflict")
    assert api.client.get(f"/streams/{stream_id}").json()["replay"] is None


def test_the_same_id_with_other_content_is_a_conflict(api: Api) -> None:
    assert api.stream(id="live-1") == api.stream(id="live-1") == "live-1"
    problem(api.client.post("/streams", json={"title": "Another", "id": "live-1"}), 409, "conflict")


@pytest.mark.parametrize(
    ("recording", "code"),
    [
        ("concat:a.mp4|b.mp4", "recording-refused"),
        ("http://example.test/a.mp4", "recording-refused"),
        ("subfile,,start,0,end,9,,:/etc/passwd", "recording-refused"),
        ("/etc/passwd", "recording-outside-roots"),
        ("../../etc/passwd", "recording-outside-roots"),
    ],
)
def test_a_recording_in_disguise_is_refused(api: Api, recording: str, code: str) -> None:
    stream_id = api.stream()
    problem(api.client.post(f"/streams/{stream_id}/end", json={"recording": recording}), 422, code)
    problem(api.client.post("/streams", json={"title": "T", "recording": recording}), 422, code)
    assert api.client.get(f"/streams/{stream_id}").json()["replay"] is None


def test_the_real_path_of_the_recording_is_kept(api: Api) -> None:
    stream_id, _ = api.ended()
    with api.ledger.read() as session:
        recording = streams.get(session, stream_id).recording
    assert recording == str((api.settings.media.recording_roots[0] / "a.mp4").resolve())


def test_cancel_and_retry(api: Api) -> None:
    stream_id, first = api.ended()
    for _ in range(2):  # cancelling twice is the same as once
        cancelled = api.client.post(f"/streams/{stream_id}/cancel")
        assert cancelled.status_code == 202
        assert cancelled.json()["replay"]["state"] == "cancelled"
    again = api.client.post(f"/streams/{stream_id}/retry")
    assert again.status_code == 202
    assert again.json()["replay"]["id"] == first["replay"]["id"]
    assert again.json()["replay"]["state"] not in ("cancelled", "failed")
    twice = api.client.post(f"/streams/{stream_id}/retry")
    assert twice.status_code == 202
    assert twice.json()["version"] == again.json()["version"]


def test_a_completed_replay_is_neither_cancelled_nor_tried_again(api: Api) -> None:
    stream_id, _ = api.ended()
    advance(api.ledger, stream_id, "completed")
    problem(api.client.post(f"/streams/{stream_id}/cancel"), 409, "conflict")
    problem(api.client.post(f"/streams/{stream_id}/retry"), 409, "conflict")


def test_a_failure_shows_its_code(api: Api) -> None:
    stream_id, _ = api.ended()
    advance(api.ledger, stream_id, "failed", problem="recording-not-media")
    shown = api.client.get(f"/streams/{stream_id}").json()
    assert shown["replay"]["state"] == "failed"
    assert shown["replay"]["problem"]["code"] == "recording-not-media"


def test_pages_are_complete_and_stable_while_streams_come_in(api: Api) -> None:
    expected = [api.stream() for _ in range(7)][::-1]
    found: list[str] = []
    after = None
    while True:
        page = api.client.get("/streams", params={"limit": 3, **({"after": after} if after else {})})
        assert page.status_code == 200
        found += [item["id"] for item in page.json()["items"]]
        after = page.json()["next"]
        assert ("next" in page.links) == (after is not None)
        if after is None:
            break
        api.stream()  # newer ones shift nothing
    assert found == expected


def test_streams_can_be_filtered_by_state(api: Api) -> None:
    live = api.stream()
    stream_id, _ = api.ended()
    state = api.client.get(f"/streams/{live}").json()["state"]
    items = api.client.get("/streams", params={"state": state}).json()["items"]
    assert [item["id"] for item in items] == [live]
    assert stream_id not in [item["id"] for item in items]
