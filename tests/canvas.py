"""A shop that uses the platform: an application and tasks of its own, and workers for `test_canvas`.

`python -m tests.canvas shop|notify|media` is a worker. In place of the tiers' real bodies are quick ones; what was done
is told in a list in Redis, in order.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, Signature
from kombu import Exchange, Queue
from redis import Redis

from control.bus import names
from control.bus.app import TIERS, make_app
from control.bus.messages import Message
from control.bus.names import Retry, TaskSpec
from control.bus.task import task_of
from control.errors import InputError, TransientError
from control.settings import BusSettings
from tests.bus import spec_of

SHOP: Final = Queue("shop", Exchange("shop", type="direct"), routing_key="shop")
DID: Final = "test-canvas-did"
SECRETIVE: Final = spec_of("tests.secretive", secret=frozenset({"code"}))


# --- what a user of the platform writes -------------------------------------------------------------------------------


def shop_app(settings: BusSettings) -> Celery:
    """An application of one's own: it knows how to send the platform's tasks, and does none of them."""
    app = make_app(settings)
    app.conf.update(
        task_queues=[SHOP],
        task_default_queue=SHOP.name,
        task_ignore_result=False,  # those of one's own tasks are wanted
        worker_consumer="celery.worker.consumer:Consumer",  # the platform's takes the platform's tasks alone
    )
    own: list[Callable[..., Any]] = [reprice, download, upload, gathered, spoilt]
    for function in own:
        app.task(name=f"shop.{function.__name__}", shared=False)(function)
    return app


def step(app: Celery, spec: TaskSpec, **arguments: Any) -> Signature[Any]:
    """One of the platform's tasks."""
    return app.signature(spec.name, kwargs=arguments, immutable=True)


def mine(app: Celery, name: str, *arguments: Any) -> Signature[Any]:
    """One of one's own tasks, whichever worker sends it."""
    signature: Signature[Any] = app.tasks[name].si(*arguments)
    return signature.set(exchange=SHOP.exchange.name, routing_key=SHOP.routing_key)


def reprice(product: int, percent: int) -> int:
    return product * percent


def download(url: str) -> str:
    note(f"download {url}")
    return "/var/recordings/1.mp4"


def upload(key: str) -> None:
    note(f"upload {key}")


def gathered(parts: int) -> None:
    note(f"gathered {parts}")


def spoilt() -> None:
    note("spoilt")


# --- in place of the tiers' bodies ------------------------------------------------------------------------------------


class Job(Message):
    """Of a part."""

    replay_id: str
    part: str
    run: int = 1


class Made(Message):
    """A result."""

    key: str


def process(job: Job) -> Made:
    if job.part == "no-video":
        raise InputError(source="it", reason="no video")
    if job.part == "hiccup" and _redis().incr(f"{DID}-hiccups") == 1:
        raise TransientError(reason="a hiccup")
    note(f"process {job.part}")
    return Made(key=job.part)


def tell() -> None:
    note("notify")


def receive(code: str) -> None:
    note(f"received {len(code)}")


def note(what: str) -> None:
    _redis().rpush(DID, what)


def did(redis: Redis) -> list[str]:
    """What was done so far."""
    return [str(one) for one in redis.lrange(DID, 0, -1)]


def _redis() -> Redis:
    return Redis.from_url(BusSettings().result_backend.get_secret_value(), decode_responses=True)


def main(name: str) -> None:
    settings = BusSettings()
    queues = [SHOP.name]
    if name == "shop":
        app = shop_app(settings)
    else:
        app, queues = make_app(settings, tier=name), list(TIERS[name].queues)
        quick = Retry(times=3, first_seconds=0.1)
        for spec, function in (
            (names.GENERATE_STREAM_THUMBNAIL, process), (names.SEND_ADMIN_NOTIFICATION, tell), (SECRETIVE, receive),
        ):  # fmt: skip
            if spec.queue in queues:
                task_of(app, dataclasses.replace(spec, retry=quick), function)
    app.set_default()
    worker: Any = app.Worker(
        hostname=f"{name}@canvas", pool="threads", concurrency=4, queues=queues, loglevel="WARNING",
        without_mingle=True, without_gossip=True,
    )  # fmt: skip
    worker.start()


if __name__ == "__main__":
    main(sys.argv[1])
