"""The platform's tasks in a workflow of one's own, with Celery's canvas.

Your tasks live in a package and on a worker of your own; the platform's are addressed by their names (`tests.canvas`
has all there is to write). What to know:

- The platform's tasks take keyword arguments alone, so they are always immutable: `.si` in Celery's words, here
  `step(app, spec, …)`. What comes before them is not handed on; name the keys of objects instead.
- Your tasks have a queue and an exchange of your own. A step is sent by whichever worker did the one before it, and
  routes are of one application: so the signature says where it goes (`mine`).
- Where each tier has a user of its own on the broker, a media node may send nothing but its answers. Let it write to
  your exchange, which leads to your queue and nowhere else, and have one of your tasks come after each of its.
- Chords count their parts in Redis, the result backend; the platform's tasks need keep no results for that.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from itertools import chain as flat
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from kombu import Connection, Exchange, Queue
from pydantic import SecretStr
from redis import Redis

from control.bus import names
from control.bus.names import CATALOGUE
from control.bus.publish import publisher_of
from control.bus.rights import RIGHTS
from control.bus.topology import TASKS
from control.settings import BusSettings
from tests import brokers, canvas
from tests.bus import until
from tests.canvas import SHOP, did, mine, step
from tests.platform import Process
from tests.services import stop

ROOT = Path(__file__).parents[3]
KEY = "a-key-for-tests-of-canvas-32-chars"


@pytest.fixture(scope="module")
def shop(
    rabbitmq: brokers.RabbitMQ, redis_server: brokers.RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Celery]:
    """Three workers: the shop's own, and one of two tiers by its own user of the broker. All messages are signed."""
    url, folder = rabbitmq.vhost(), tmp_path_factory.mktemp("canvas")
    users = rabbitmq.users(url) | {"shop": url}
    media = RIGHTS["media"]
    write = media.write.removesuffix(")$") + f"|{SHOP.exchange.name})$"
    rabbitmq.ctl("set_permissions", "-p", url.rpartition("/")[2], "afterlive-media", media.configure, write, media.read)
    with Connection(url) as connection:
        SHOP(connection.default_channel).declare()
    env = {key: value for key, value in os.environ.items() if not key.startswith("AFTERLIVE_")} | {
        "AFTERLIVE_BUS_RESULT_BACKEND": redis_server.url,
        "AFTERLIVE_BUS_SIGNING_KEYS": f'["{KEY}"]',
        "PYTHONPATH": str(ROOT),
    }
    workers = [
        Process(
            name, [sys.executable, "-W", "ignore", "-m", "tests.canvas", name],
            env | {"AFTERLIVE_BUS_BROKER_URL": users[name]}, folder, folder / f"{name}.log",
        ).start()
        for name in ("shop", "notify", "media")
    ]  # fmt: skip
    app = canvas.shop_app(
        BusSettings(
            _env_file=None,
            broker_url=SecretStr(url),
            result_backend=SecretStr(redis_server.url),
            signing_keys=[SecretStr(KEY)],
        )
    )
    yield app
    gc.collect()  # results unsubscribe when they go, and Redis goes after the last test
    for worker in workers:
        assert worker.process is not None
        assert worker.alive, worker.said()
        worker.process.terminate()
    for worker in workers:
        assert worker.process is not None
        stop(worker.process)
    publisher_of(app).close()
    rabbitmq.forget(url)


@pytest.fixture
def redis(redis_server: brokers.RedisServer) -> Redis:
    made: Redis = redis_server.client()
    made.delete(canvas.DID)
    return made


def job(part: str) -> dict[str, Any]:
    return {"job": {"replay_id": "rep_1", "part": part}}


def test_chunks_of_a_task_of_ones_own(shop: Celery) -> None:
    """A hundred products in ten messages."""
    products = [(number, 2) for number in range(100)]
    result: Any = shop.tasks["shop.reprice"].chunks(products, 10).group().apply_async()
    assert len(result.children) == 10
    # Workers that ran in this process, in other tests, had Celery believe that it is one.
    found = result.get(timeout=60, disable_sync_subtasks=False)
    assert sorted(flat.from_iterable(found)) == [number * 2 for number in range(100)]


def test_download_process_upload_notify(shop: Celery, redis: Redis) -> None:
    """A chain through three workers; each step begins when the one before it is done."""
    chain(
        mine(shop, "shop.download", "https://cdn.example.com/1.mp4"),
        step(shop, names.GENERATE_STREAM_THUMBNAIL, **job("thumbnails")),
        mine(shop, "shop.upload", "rep_1/thumbnails"),
        step(shop, names.SEND_ADMIN_NOTIFICATION),
    ).apply_async()
    until(lambda: "notify" in did(redis), "the last step", seconds=60)
    assert did(redis) == [
        "download https://cdn.example.com/1.mp4", "process thumbnails", "upload rep_1/thumbnails", "notify",
    ]  # fmt: skip


def test_many_parts_and_then_one_word(shop: Celery, redis: Redis) -> None:
    """A chord: a group of the platform's tasks, one of which needs a second try, and a callback when all are done."""
    parts = ["0", "1", "hiccup", "3", "4"]
    steps = [step(shop, names.GENERATE_STREAM_THUMBNAIL, **job(part)) for part in parts]
    chord(group(steps, app=shop), mine(shop, "shop.gathered", len(parts)), app=shop).apply_async()
    until(lambda: "gathered 5" in did(redis), "the callback", seconds=60)
    *processed, last = did(redis)
    assert last == "gathered 5"
    assert sorted(processed) == sorted(f"process {part}" for part in parts)
    assert redis.get(f"{canvas.DID}-hiccups") == "2"


def test_a_part_that_fails_finally_calls_the_errback_and_not_the_callback(shop: Celery, redis: Redis) -> None:
    steps = [step(shop, names.GENERATE_STREAM_THUMBNAIL, **job(part)) for part in ("0", "no-video", "2")]
    body = mine(shop, "shop.gathered", 3).on_error(mine(shop, "shop.spoilt"))
    chord(group(steps, app=shop), body, app=shop).apply_async()
    until(lambda: "spoilt" in did(redis), "somebody is told", seconds=60)
    until(lambda: len(did(redis)) == 3, "the other parts")
    assert sorted(did(redis)) == ["process 0", "process 2", "spoilt"]


def test_secrets_are_masked_in_a_canvas_too(shop: Celery, redis: Redis) -> None:
    """Though who sends it has no body of the task, and Celery makes the message."""
    spec = canvas.SECRETIVE
    CATALOGUE[spec.name] = spec
    try:
        with Connection(shop.conf.broker_url) as connection:
            channel = connection.default_channel
            tasks = Exchange(TASKS.name, no_declare=True)
            watching = Queue("watching", tasks, routing_key=spec.routing_key)(channel)
            watching.declare()
            # It is not of the catalogue, so no route of the application has it.
            send = step(shop, spec, code="hunter2-735").set(exchange=TASKS.name, routing_key=spec.routing_key)
            send.apply_async()
            headers = until(lambda: watching.get(no_ack=True), "the message", seconds=30).headers
    finally:
        del CATALOGUE[spec.name]
    assert headers["kwargsrepr"] == "{'code': '***'}"
    until(lambda: "received 11" in did(redis), "it is done", seconds=60)
