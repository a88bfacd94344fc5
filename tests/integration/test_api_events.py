"""Server-sent events: what a client sees of a replay in the making."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import sse as fastapi_sse

from tests.api_server import Api
from tests.conftest import API_KEY
from tests.replays import advance


@dataclass
class Sse:
    """One event as a client sees it."""

    name: str
    id: str | None
    data: Any


def read_events(lines: Iterator[str]) -> Iterator[Sse]:
    """Events of a text/event-stream, as the HTML standard parses them; comments are events named ':'."""
    name, id_ = "message", None
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield Sse(name, id_, json.loads("\n".join(data)))
            name, id_, data = "message", None, []
        elif line.startswith(":"):
            yield Sse(":", None, line[1:].strip())
        else:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                name = value
            elif key == "id":
                id_ = value
            elif key == "data":
                data.append(value)


def collect(api: Api, stream_id: str, **headers: str) -> list[Sse]:
    """All events until the server ends the stream."""
    with api.client.stream("GET", f"/streams/{stream_id}/events", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        return [event for event in read_events(answer.iter_lines()) if event.name != ":"]


def test_events_follow_a_replay_to_its_end(api: Api) -> None:
    stream_id, _ = api.ended()

    def work() -> None:
        for state in ("transcoding", "playable", "completed"):
            time.sleep(0.7)
            advance(api.ledger, stream_id, state)

    worker = threading.Thread(target=work)
    worker.start()
    started = time.monotonic()
    events = collect(api, stream_id)
    seconds = time.monotonic() - started
    worker.join()
    happened = [event for event in events if event.name != "progress"]
    progress = [event for event in events if event.name == "progress"]
    assert [event.name for event in happened][-1] == "replay.completed"
    assert "replay.playable" in [event.name for event in happened]
    ids = [int(event.id or 0) for event in happened]
    assert ids == sorted(set(ids))
    assert progress[-1].data["replay"]["state"] == "completed"
    assert all(event.data["id"] == stream_id for event in progress)
    assert events.index(progress[-1]) < events.index(happened[-1])
    assert len(progress) <= 2 * seconds + 2


def test_a_client_that_comes_back_misses_nothing_and_repeats_nothing(api: Api) -> None:
    stream_id, _ = api.ended()
    for state in ("transcoding", "playable", "completed"):
        advance(api.ledger, stream_id, state)
    everything = [(event.name, event.id) for event in collect(api, stream_id) if event.name != "progress"]
    assert len(everything) >= 2
    _, first = everything[0]
    resumed = [
        (event.name, event.id)
        for event in collect(api, stream_id, **{"Last-Event-ID": str(first)})
        if event.name != "progress"
    ]
    assert resumed == everything[1:]
    _, last = everything[-1]
    after_all = api.client.get(f"/streams/{stream_id}/events", headers={"Last-Event-ID": str(last)})
    assert after_all.status_code == 204  # EventSource stops coming back
    nonsense = [event for event in collect(api, stream_id, **{"Last-Event-ID": "x"}) if event.name != "progress"]
    assert len(nonsense) == len(everything)


def test_an_idle_stream_is_kept_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi_sse, "_PING_INTERVAL", 0.2)
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.2)
    stream_id = api.stream()
    with api.client.stream("GET", f"/streams/{stream_id}/events", timeout=10) as answer:
        events = read_events(answer.iter_lines())
        assert sum(next(events).name == ":" for _ in range(5)) >= 3


def test_a_client_that_leaves_is_noticed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from control.api import events

    looks: list[float] = []
    original: Callable[..., Any] = events._look

    def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return original(*arguments)

    monkeypatch.setattr(events, "_look", counted)
    stream_id = api.stream()
    with api.client.stream("GET", f"/streams/{stream_id}/events", timeout=10) as answer:
        next(answer.iter_lines())
        time.sleep(1.2)
    assert len(looks) >= 2
    time.sleep(1.0)
    settled = len(looks)
    time.sleep(1.5)
    assert len(looks) == settled


def test_the_loop_goes_on_while_many_follow(api: Api) -> None:
    """Readers of events hold no worker thread: sixty of them leave room for everybody else."""
    stream_id = api.stream()
    url = f"{api.client.base_url}/streams/{stream_id}/events"
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(headers={"X-API-Key": API_KEY}, timeout=20, limits=limits) as crowd:
        following = [crowd.send(crowd.build_request("GET", url), stream=True) for _ in range(60)]
        try:
            started = time.monotonic()
            assert api.client.get(f"/streams/{stream_id}").status_code == 200
            assert time.monotonic() - started < 5
        finally:
            for answer in following:
                answer.close()
