"""Exchanges and queues: one table, for whoever declares them, publishes to them or consumes them.

A message's routing key is its queue and its task (`default.pipelines.part_done`): queues are bound to all keys that
start with their word (`control.bus.names.key_word`), and the broker can hold a user to the tasks it may send
(`control.bus.rights`).

    tasks ─┬► high_priority │ default │ low_priority ──(rejected, or delivered too often)──► failed ──► failed_tasks
           │  low_priority.nvenc │ low_priority.vaapi   chunks that want such an encoder
           └─(no queue for it)──────────────────────────────────────────────────────────────► failed
    celery_delayed_27 … 0 ──► celery_delayed_delivery ──► tasks        (waits of up to eight years, kombu's own)
    direct ──► the queue of that name           broadcasts ──► a queue of each worker       events ──► whoever binds one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kombu import Exchange, Queue
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE

from control.bus.names import FAILED, QUEUES, TaskSpec, key_word

VERSION: Final = 1
"""Part of the exchanges' names: one whose arguments change gets a new name, and old publishers keep the old."""

DELAY: Final = "celery_delayed_27"
DELIVERY: Final = "celery_delayed_delivery"


def _exchange(name: str, kind: str, **arguments: str) -> Exchange:
    # Nobody but the topology command declares: no worker needs the right to, and no two versions quarrel (406).
    return Exchange(f"afterlive.v{VERSION}.{name}", type=kind, durable=True, arguments=arguments, no_declare=True)


FAILURES: Final = _exchange("failed", "topic")
TASKS: Final = _exchange("tasks", "topic", **{"alternate-exchange": FAILURES.name})
BROADCASTS: Final = _exchange("broadcasts", "fanout")
DIRECT: Final = _exchange("direct", "direct")
EVENTS: Final = _exchange("events", "topic")
EXCHANGES: Final = (FAILURES, TASKS, BROADCASTS, DIRECT, EVENTS)


@dataclass(frozen=True)
class QueueSpec:
    """One durable queue of the platform and what it is bound to."""

    name: str
    exchange: Exchange
    routing_key: str
    arguments: dict[str, Any] = field(default_factory=dict)


# Replicated, on disk. A message that was delivered so often and never acknowledged killed its workers. What is dead
# is moved at least once, for which RabbitMQ wants `reject-publish`: a full queue refuses, and the outbox keeps.
_WORK: Final = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 6,
    "x-max-length": 1_000_000,
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": FAILURES.name,
    "x-dead-letter-strategy": "at-least-once",
}
# RabbitMQ 4 limits deliveries to 20 by default: what waits here for the ledger's database may come more often, and
# has no other place to go. (3.10 takes no -1: a number nobody reaches.)
_FAILED: Final = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}

QUEUE_SPECS: Final = (
    *(QueueSpec(name, TASKS, f"{key_word(name)}.#", _WORK) for name in QUEUES),
    QueueSpec(FAILED, FAILURES, "#", _FAILED),
)


def queues(broker_url: str) -> list[Queue]:
    """The queues of tasks, as Celery's workers consume them."""
    return [queue_of(spec, broker_url) for spec in QUEUE_SPECS if spec.name in QUEUES]


def queue_of(spec: QueueSpec, broker_url: str) -> Queue:
    """As a consumer wants it: on RabbitMQ it must be there; the in-process broker has what its consumers bring."""
    if not on_rabbitmq(broker_url):
        return Queue(spec.name, exchange_of(spec.exchange, broker_url), routing_key=spec.routing_key)
    # Celery knows a quorum queue by its arguments.
    arguments = spec.arguments
    return Queue(spec.name, spec.exchange, routing_key=spec.routing_key, queue_arguments=arguments, no_declare=True)


def exchange_of(exchange: Exchange, broker_url: str) -> Exchange:
    """As a queue is bound to it: see `queue_of`."""
    return exchange if on_rabbitmq(broker_url) else Exchange(exchange.name, type=exchange.type)


def on_rabbitmq(broker_url: str) -> bool:
    """Whether it is a broker that declares, confirms and dead-letters; the in-process one does none of it."""
    return broker_url.startswith("amqp")


def is_addressed(spec: TaskSpec, delivery_info: Mapping[str, Any]) -> bool:
    """Whether a message of `spec` came by a routing key of its own; or straight to a queue of its, by name, from
    somebody whom the broker lets."""
    key = str(delivery_info.get("routing_key") or "")
    if delivery_info.get("exchange") == DIRECT.name:
        return key in spec.queues
    return without_delay(key) in spec.routing_keys


def queue_name(routing_key: str) -> str:
    """The queue that keys like this one go to; the first word itself where there is no such queue."""
    word = routing_key.partition(".")[0]
    return next((queue for queue in QUEUES if key_word(queue) == word), word)


def without_delay(routing_key: str) -> str:
    """The routing key a message was published with, before kombu's delay put bits in front."""
    words = routing_key.split(".", MAX_NUMBER_OF_BITS_TO_USE)
    bits = words[:MAX_NUMBER_OF_BITS_TO_USE]
    delayed = len(words) > MAX_NUMBER_OF_BITS_TO_USE and all(bit in {"0", "1"} for bit in bits)
    return words[-1] if delayed else routing_key
