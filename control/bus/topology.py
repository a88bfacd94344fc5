"""Exchanges and queues, declared in one place."""

from __future__ import annotations

from typing import Any, Final

from kombu import Exchange, Queue

from control.bus.names import QUEUES

TASKS: Final = Exchange("afterlive.tasks", type="topic", durable=True)


def queues(broker_url: str) -> list[Queue]:
    """The queues workers consume; a queue's name is its routing key."""
    return [
        Queue(name, TASKS, routing_key=name, durable=True, queue_arguments=_arguments(broker_url)) for name in QUEUES
    ]


def _arguments(broker_url: str) -> dict[str, Any] | None:
    # Replicated and on disk; the in-process broker knows no kinds of queues.
    return {"x-queue-type": "quorum"} if broker_url.startswith("amqp") else None
