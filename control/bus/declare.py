"""Declaring the topology, on a broker that has none of it, all of it, or that of another version."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import amqp
from amqp.exceptions import MessageNacked, PreconditionFailed
from amqp.exceptions import NotFound as QueueMissing
from kombu import Connection
from kombu.transport.native_delayed_delivery import (
    MAX_NUMBER_OF_BITS_TO_USE,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from control.bus.topology import DELIVERY, DIRECT, EXCHANGES, QUEUE_SPECS, TASKS, QueueSpec
from control.errors import Conflict

log = logging.getLogger("afterlive.topology")
_DELAYED: Final = "*." * MAX_NUMBER_OF_BITS_TO_USE


def declare(connection: Connection, specs: Sequence[QueueSpec] = QUEUE_SPECS) -> list[str]:
    """Declare all of it; a line for each thing. Declaring it again changes nothing.

    A queue that is there with other arguments is made anew and its messages are moved (in an instant where both are
    bound, one may come twice). What was interrupted is finished. Raises Conflict, with nothing changed, where somebody
    still consumes such a queue: what a worker holds would be lost.
    """
    others = _with_other_arguments(connection, specs)
    _refuse_consumers(connection, others)
    lines = []
    with _channel(connection) as channel:
        for exchange in EXCHANGES:
            channel.exchange_declare(
                exchange.name, exchange.type, durable=True, auto_delete=False, arguments=exchange.arguments
            )
            lines.append(f"exchange {exchange.name} ({exchange.type})")
    declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
    lines.append(f"delays   {MAX_NUMBER_OF_BITS_TO_USE} exchanges and queues")
    for spec in specs:
        if spec in others:
            _step_aside(connection, spec)
        with _channel(connection) as channel:
            _make(channel, spec.name, spec)
        moved = _step_back(connection, spec)
        lines.append(f"queue    {spec.name}" + (f": made anew, {moved} messages moved" if moved is not None else ""))
    with _channel(connection) as channel:
        for spec in specs:
            if spec.exchange is TASKS:
                channel.exchange_bind(TASKS.name, DELIVERY, _DELAYED + spec.routing_key)
    return lines


def missing(connection: Connection) -> list[str]:
    """The queues that are not there; for whoever may not declare."""
    return [spec.name for spec in QUEUE_SPECS if count(connection, spec.name) is None]


def _with_other_arguments(connection: Connection, specs: Sequence[QueueSpec]) -> list[QueueSpec]:
    found = []
    for spec in specs:
        if count(connection, spec.name) is None:
            continue
        try:
            with _channel(connection) as channel:
                channel.queue_declare(spec.name, durable=True, auto_delete=False, arguments=spec.arguments)
        except PreconditionFailed:
            found.append(spec)
    return found


def _refuse_consumers(connection: Connection, specs: Sequence[QueueSpec]) -> None:
    seen = {spec.name: (count(connection, spec.name) or (0, 0))[1] for spec in specs}
    consumed = ", ".join(f"{name} ({consumers} consumers)" for name, consumers in seen.items() if consumers)
    if consumed:
        raise Conflict(reason=f"Queues with other arguments are still consumed: {consumed}. Stop their workers first.")


def _step_aside(connection: Connection, spec: QueueSpec) -> None:
    """A queue beside it takes what comes, then what was there; then it is gone. Nothing is ever in neither."""
    with _channel(connection) as channel:
        _make(channel, _aside(spec), spec, {"x-queue-type": "quorum"})
        _unbind(channel, spec.name, spec)
    _empty(connection, spec, spec.name, _aside(spec))


def _step_back(connection: Connection, spec: QueueSpec) -> int | None:
    """None where nothing stepped aside, now or in a migration that was interrupted; else how many came back."""
    if count(connection, _aside(spec)) is None:
        return None
    with _channel(connection) as channel:
        _unbind(channel, _aside(spec), spec)
    return _empty(connection, spec, _aside(spec), spec.name)


def _empty(connection: Connection, spec: QueueSpec, source: str, target: str) -> int:
    """Move all of it, then delete it. RabbitMQ deletes a quorum queue without looking (it knows no `if_empty`): so it
    is looked at here, when nothing is bound to it any more."""
    moved = _move(connection, source, target)
    while (count(connection, source) or (0, 0))[0]:
        moved += _move(connection, source, target)
    # A worker that came back meanwhile may hold some.
    _refuse_consumers(connection, [replace(spec, name=source)])
    with _channel(connection) as channel:
        channel.queue_delete(source)
    return moved


def _make(channel: Any, name: str, spec: QueueSpec, arguments: dict[str, Any] | None = None) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments or spec.arguments)
    for exchange, key in _bindings(spec):
        channel.queue_bind(name, exchange, key)


def _unbind(channel: Any, name: str, spec: QueueSpec) -> None:
    for exchange, key in _bindings(spec):
        channel.queue_unbind(name, exchange, key)


def _bindings(spec: QueueSpec) -> list[tuple[str, str]]:
    """Exchange and routing key of each."""
    bindings = [(spec.exchange.name, spec.routing_key)]
    if spec.exchange is TASKS:
        bindings += [(TASKS.name, _DELAYED + spec.routing_key), (DIRECT.name, spec.name)]
    return bindings


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
            copy = amqp.Message(message.body, **_told(message))
            try:
                channel.basic_publish_confirm(copy, way, message.delivery_info["routing_key"], mandatory=True)
            except MessageNacked:
                reason = f"The queue {target} is full: what is left waits in {source}. Make room, then declare again."
                raise Conflict(reason=reason) from None
            channel.basic_ack(message.delivery_tag)
            moved += 1
        channel.queue_unbind(target, way)
    return moved


def _told(message: Any) -> dict[str, Any]:
    """What goes with it, but for what the broker itself tells, or takes from the user it names alone."""
    told = {name: value for name, value in message.properties.items() if name != "user_id"}
    headers = {name: value for name, value in told.get("application_headers", {}).items() if name != "x-delivery-count"}
    return told | {"application_headers": headers}


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
