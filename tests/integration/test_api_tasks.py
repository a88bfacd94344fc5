"""Tasks over HTTP: what the ledger knows, with what Redis says of those that run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from control.bus import live, names
from control.bus.context import Delivery
from control.bus.publish import send
from control.ledger import failures, outbox, tasks
from control.settings import BusSettings, Settings
from tests.api_server import Api, problem
from tests.brokers import RedisServer, redis_server
from tests.bus import bus, spec_of, until
from tests.failed import failed


def on_redis(url: str) -> None:
    live.use(BusSettings(_env_file=None, result_backend=SecretStr(url)))


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    on_redis(redis_server.url)
    yield redis_server
    live.use(BusSettings(_env_file=None))


def pending(api: Api, key: str = "rep_1") -> str:
    with api.ledger.write() as session:
        return outbox.add(session, names.PART_DONE, {"replay_id": key})


def delivery(task_id: str, spec: names.TaskSpec = names.PART_DONE, key: str | None = "rep_1") -> Delivery:
    return Delivery(task_id, spec.name, spec.queue, key, attempt=2)


def test_a_task_from_its_beginning_to_its_end(api: Api, redis: RedisServer) -> None:
    task_id = pending(api)
    shown = api.client.get(f"/tasks/{task_id}").json()
    created_at = shown.pop("created_at")
    assert created_at
    assert shown == {
        "id": task_id,
        "task": "pipelines.part_done",
        "queue": "default",
        "key": "rep_1",
        "state": "PENDING",
        "progress": None,
        "attempt": None,
        "started_at": None,
        "finished_at": None,
        "failure": None,
    }
    live.started(delivery(task_id))
    live.progress(task_id, 0.5)
    shown = api.client.get(f"/tasks/{task_id}").json()
    assert (shown["state"], shown["progress"], shown["attempt"]) == ("STARTED", 0.5, 2)
    assert shown["started_at"] >= created_at
    live.waits(task_id)
    shown = api.client.get(f"/tasks/{task_id}").json()
    assert (shown["state"], shown["progress"]) == ("RETRY", None)
    with api.ledger.write() as session:
        assert tasks.finish(session, task_id, "SUCCESS")
    shown = api.client.get(f"/tasks/{task_id}").json()
    assert (shown["state"], shown["progress"], shown["attempt"]) == ("SUCCESS", 1.0, 2)
    assert shown["finished_at"] >= shown["started_at"]


def test_a_task_that_runs_is_shown_as_it_is(api: Api, settings: Settings) -> None:
    """A media task that no outbox sent, on a real worker."""
    go_on = threading.Event()

    def body() -> None:
        go_on.wait(30)

    spec = spec_of("tests.slow", queue=names.LOW)
    with bus(settings, (spec, body), modules=()) as running:
        task_id = send(running.app, spec, {})
        shown = until(
            lambda: (answer := api.client.get(f"/tasks/{task_id}")).status_code == 200 and answer.json(), "it runs"
        )
        assert (shown["state"], shown["task"], shown["attempt"]) == ("STARTED", "tests.slow", 1)
        go_on.set()
        until(lambda: api.client.get(f"/tasks/{task_id}").json()["state"] == "SUCCESS", "it is done")


def test_a_task_that_failed_says_why_and_where_to_see_to_it(api: Api) -> None:
    row = failed(api.ledger, detail="ffmpeg was killed.", code="encoder-failed")
    shown = api.client.get(f"/tasks/{row.task_id}").json()
    assert (shown["state"], shown["attempt"]) == ("FAILURE", 6)
    assert shown["failure"] == {
        "failed_task_id": row.id,
        "reason": "failed",
        "code": "encoder-failed",
        "detail": "ffmpeg was killed.",
        "state": "open",
    }
    assert api.client.get(f"/failed-tasks/{row.id}").json()["task_id"] == row.task_id
    with api.ledger.write() as session:
        failures.discard(session, row.id, "ann")
    shown = api.client.get(f"/tasks/{row.task_id}").json()
    assert (shown["state"], shown["failure"]["state"]) == ("DISCARDED", "discarded")


def test_tasks_by_their_key_newest_first(api: Api, redis: RedisServer) -> None:
    ids = [pending(api) for _ in range(3)]
    pending(api, "rep_2")
    live.started(delivery(ids[1]))
    until(lambda: api.client.get(f"/tasks/{ids[1]}").json()["state"] == "STARTED", "it is known to have begun")
    items = api.client.get("/tasks", params={"key": "rep_1"}).json()["items"]
    assert [(item["id"], item["state"]) for item in items] == [
        (ids[2], "PENDING"),
        (ids[1], "STARTED"),
        (ids[0], "PENDING"),
    ]
    two = api.client.get("/tasks", params={"key": "rep_1", "limit": 2}).json()["items"]
    assert [item["id"] for item in two] == ids[:0:-1]
    assert api.client.get("/tasks", params={"key": "rep_9"}).json() == {"items": []}


def test_a_task_nobody_knows(api: Api, redis: RedisServer) -> None:
    document = problem(api.client.get("/tasks/t-1"), 404, "not-found")
    assert document["detail"] == "There is no task t-1."


@pytest.mark.parametrize("query", [{}, {"key": ""}, {"key": "k" * 65}, {"key": "a\0b"}, {"key": "k", "limit": 101}])
def test_a_wrong_question(api: Api, query: dict[str, str]) -> None:
    problem(api.client.get("/tasks", params=query), 422, "request-invalid")
    problem(api.client.get("/tasks/a%00b"), 422, "request-invalid")


def test_with_redis_away_it_answers_at_once(api: Api, tmp_path_factory: pytest.TempPathFactory) -> None:
    with redis_server(tmp_path_factory.mktemp("redis")) as own:
        on_redis(own.url)
        try:
            ids = [pending(api) for _ in range(20)]
            live.started(delivery(ids[0]))
            live.flush()
            assert api.client.get(f"/tasks/{ids[0]}").json()["state"] == "STARTED"
            own.kill()
            began = time.monotonic()
            assert api.client.get(f"/tasks/{ids[0]}").json()["state"] == "PENDING"
            listed = api.client.get("/tasks", params={"key": "rep_1", "limit": 100}).json()["items"]
            problem(api.client.get("/tasks/t-1"), 404, "not-found")
            assert time.monotonic() - began < 2
            assert {item["state"] for item in listed} == {"PENDING"}
            assert len(listed) == 20
        finally:
            live.use(BusSettings(_env_file=None))
