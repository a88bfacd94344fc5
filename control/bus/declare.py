"""Declaring the topology, on a broker that has none of it, all of it, or that of another version."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import amqp
from amqp.exceptions import NotFound as QueueMissing
from amqp.exceptions import PreconditionFailed
from kombu import Connection
from kombu.transport.native_delayed_delivery import (
    MAX_NUMBER_OF_BITS_TO_USE,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from control.bus.topology import DELIVERY, EXCHANGES, QUEUE_SPECS, TASKS, QueueSpec
from control.errors import Conflict

log = logging.getLogger("afterlive.topology")
_DELAYED: Final = "*." * MAX_NUMBER_OF_BITS_TO_USE


def declare(connection: Connection) -> list[str]:
    """Declare all of it; a line for each thing. Declaring it again changes nothing.

    A queue that is there with other arguments is made anew and its messages are moved (in an instant where both are
    bound, one may come twice). Raises Conflict where somebody still consumes it: what a worker holds would be lost.
    """
    lines = []
    with _channel(connection) as channel:
        for exchange in EXCHANGES:
            channel.exchange_declare(
                exchange.name, exchange.type, durable=True, auto_delete=False, arguments=exchange.arguments
            )
            lines.append(f"exchange {exchange.name} ({exchange.type})")
    declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
    lines.append(f"delays   {MAX_NUMBER_OF_BITS_TO_USE} exchanges and queues")
    for spec in QUEUE_SPECS:
        moved = _declare_queue(connection, spec)
        lines.append(f"queue    {spec.name}" + (f": made anew, {moved} messages moved" if moved is not None else ""))
    with _channel(connection) as channel:
        for spec in QUEUE_SPECS:
            if spec.exchange is TASKS:
                channel.exchange_bind(TASKS.name, DELIVERY, _DELAYED + spec.routing_key)
    return lines


def missing(connection: Connection) -> list[str]:
    """The queues that are not there; for whoever may not declare."""
    return [spec.name for spec in QUEUE_SPECS if count(connection, spec.name) is None]


def _declare_queue(connection: Connection, spec: QueueSpec) -> int | None:
    """None, or how many messages were moved from the queue that was there with other arguments."""
    moved = None
    try:
        with _channel(connection) as channel:
            _make(channel, spec.name, spec)
    except PreconditionFailed:
        consumers = (count(connection, spec.name) or (0, 0))[1]
        if consumers:
            reason = f"The queue {spec.name} has other arguments and {consumers} consumers: stop its workers first."
            raise Conflict(reason=reason) from None
        moved = 0
        _step_aside(connection, spec)
        with _channel(connection) as channel:
            _make(channel, spec.name, spec)
    # Also what a migration that was interrupted left behind.
    if count(connection, _aside(spec)) is not None:
        with _channel(connection) as channel:
            _unbind(channel, _aside(spec), spec)
        moved = _move(connection, _aside(spec), spec.name)
        with _channel(connection) as channel:
            channel.queue_delete(_aside(spec), if_unused=True, if_empty=True)
    return moved


def _step_aside(connection: Connection, spec: QueueSpec) -> None:
    """A queue beside it takes what comes, then what was there; then it is gone. Nothing is ever in neither."""
    with _channel(connection) as channel:
        _make(channel, _aside(spec), spec, {"x-queue-type": "quorum"})
        _unbind(channel, spec.name, spec)
    _move(connection, spec.name, _aside(spec))
    with _channel(connection) as channel:
        channel.queue_delete(spec.name, if_unused=True, if_empty=True)


def _make(channel: Any, name: str, spec: QueueSpec, arguments: dict[str, Any] | None = None) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments or spec.arguments)
    for key in _keys(spec):
        channel.queue_bind(name, spec.exchange.name, key)


def _unbind(channel: Any, name: str, spec: QueueSpec) -> None:
    for key in _keys(spec):
        channel.queue_unbind(name, spec.exchange.name, key)


def _keys(spec: QueueSpec) -> list[str]:
    return [spec.routing_key, _DELAYED + spec.routing_key] if spec.exchange is TASKS else [spec.routing_key]


def _aside(spec: QueueSpec) -> str:
    return f"{spec.name}.aside"


def _move(connection: Connection, source: str, target: str) -> int:
    """Message by message, each confirmed before it is taken away; the routing key stays what it was."""
    moved = 0
    with _channel(connection) as channel:
        # The default exchange would make the queue's name the routing key.
        way = f"{target}.from.{source}"
        channel.exchange_declare(way, "fanout", durable=False, auto_delete=True)
        channel.queue_bind(target, way)
        while (message := channel.basic_get(source)) is not None:
            copy = amqp.Message(message.body, **message.properties)
            channel.basic_publish_confirm(copy, way, message.delivery_info["routing_key"], mandatory=True)
            channel.basic_ack(message.delivery_tag)
            moved += 1
        channel.queue_unbind(target, way)
    return moved


def count(connection: Connection, name: str) -> tuple[int, int] | None:
    """Messages and consumers of a queue; None where there is no such queue."""
    try:
        with _channel(connection) as channel:
            found = channel.queue_declare(name, passive=True)
            return found.message_count, found.consumer_count
    except QueueMissing:
        return None


@contextmanager
def _channel(connection: Connection) -> Iterator[Any]:
    """A channel of its own: the broker closes one on which something was refused."""
    channel: Any = connection.channel()
    try:
        yield channel
    finally:
        if channel.is_open:
            channel.close()
