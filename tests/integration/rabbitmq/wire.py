"""The bus as a client of its own sees it: raw AMQP, so that what is proven does not rest on what proves it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import pytest
from amqp.exceptions import AccessRefused
from celery import Celery
from kombu import Connection
from pydantic import SecretStr

from control.bus.app import make_app
from control.bus.publish import publisher_of
from control.settings import BusSettings
from tests.bus import until


@contextmanager
def channel(url: str) -> Iterator[Any]:
    """A channel of a connection of its own."""
    with Connection(url) as connection:
        yield connection.channel()


def put(
    url: str, exchange: str, key: str, body: str = "{}", headers: dict[str, Any] | None = None, **told: Any
) -> None:
    """Publish one message, confirmed."""
    with channel(url) as made:
        publish(made, exchange, key, body, headers, **told)


def publish(
    made: Any, exchange: str, key: str, body: str = "{}", headers: dict[str, Any] | None = None, **told: Any
) -> None:
    """As `put`, on a channel that is there."""
    message = amqp.Message(
        body, application_headers=headers or {}, content_type="application/json", content_encoding="utf-8", **told
    )
    made.basic_publish_confirm(message, exchange, key)


def take(url: str, queue: str, number: int, seconds: float = 10) -> list[Any]:
    """The first `number` messages of a queue, once they are there; they are gone then."""
    found: list[Any] = []
    with channel(url) as made:

        def look() -> bool:
            while (message := made.basic_get(queue, no_ack=True)) is not None:
                found.append(message)
            return len(found) >= number

        until(look, f"{number} messages in {queue} (there are {len(found)})", seconds)
    return found


def depth(url: str, queue: str) -> int | None:
    """Messages that are ready; None where there is no such queue."""
    try:
        with channel(url) as made:
            return int(made.queue_declare(queue, passive=True).message_count)
    except amqp.NotFound:
        return None


def key_of(message: Any) -> str:
    return str(message.delivery_info["routing_key"])


def headers_of(message: Any) -> dict[str, Any]:
    return dict(message.properties.get("application_headers") or {})


def payload_of(message: Any) -> dict[str, Any]:
    """The keyword arguments of a task's message."""
    return dict(json.loads(message.body)[1])


def listen(made: Any, exchange: str) -> None:
    """Have what comes to an exchange in a queue of one's own."""
    made.queue_bind(made.queue_declare("", exclusive=True).queue, exchange, "#")


def refused(url: str, method: str, *arguments: Any, **named: Any) -> None:
    """It is more than this user may: a method of a channel, or one of `publish` and `listen` here."""
    ours: dict[str, Callable[..., None]] = {"publish": publish, "listen": listen}
    with channel(url) as made, pytest.raises(AccessRefused):
        ours[method](made, *arguments) if method in ours else getattr(made, method)(*arguments, **named)


@contextmanager
def app_on(url: str, **changes: Any) -> Iterator[Celery]:
    """The product's application on a broker; its publisher ends with the block."""
    settings = BusSettings(_env_file=None, broker_url=SecretStr(url), **changes)
    app = make_app(settings)
    try:
        yield app
    finally:
        publisher_of(app).close()


def took(started: float) -> float:
    return time.monotonic() - started
