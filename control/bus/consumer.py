"""How a worker consumes from RabbitMQ, where Celery's own way does not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer as CeleryConsumer

from control import telemetry
from control.bus.names import TaskSpec
from control.bus.publish import DEADLINE, FIRST, PUBLISHED_AT
from control.bus.rights import ANSWERS
from control.bus.topology import is_addressed

log = logging.getLogger("afterlive.worker")
_NOT_OURS: Final = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
# kombu's waits for a broker grow to half a minute: too long where a code is valid for five.
_PAUSES_SECONDS: Final = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
_ID_LENGTH: Final = 64  # as long as the ledger keeps
_CANVAS: Final = frozenset({"callbacks", "errbacks", "chain", "chord"})


class Consumer(CeleryConsumer):
    """Declares no delays (`afterlive topology` did, and workers have no right to), loses no message it cannot read
    (Celery would acknowledge it, here it goes to `failed_tasks`), and takes none its sender was not to send."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc,valid-type]  # it is a class, whatever the stubs say
        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if step != _NOT_OURS]  # noqa: RUF012

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(conn.ensure_connection, **_PAUSES_SECONDS)
        return super().ensure_connected(conn)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        log.error("a message of %s cannot be read (%s): rejected", message.delivery_info.get("routing_key"), exc)
        message.reject(requeue=False)

    def update_strategies(self) -> None:
        super().update_strategies()
        strategies: dict[str, Callable[..., Any]] = vars(self)["strategies"]  # its type stubs have none
        for name, strategy in strategies.items():
            strategies[name] = _gate(getattr(self.app.tasks[name], "spec", None), strategy)


def _gate(spec: TaskSpec | None, strategy: Callable[..., Any]) -> Callable[..., Any]:
    def take(message: Any, *rest: Any) -> Any:
        if reason := refusal(spec, message):
            telemetry.FAILURES.labels(spec.name if spec else "unknown", "refused").inc()
            name, key = message.headers.get("task"), message.delivery_info.get("routing_key")
            log.error("a message of %s by the routing key %s is refused: %s", name, key, reason)
            return message.reject(requeue=False)
        return strategy(message, *rest)

    return take


def refusal(spec: TaskSpec | None, message: Any) -> str | None:
    """Why a message is not to be worked on, where its sender overstepped; None where all is well.

    The broker holds a media node to the routing keys it may send by, and this holds it to their tasks. It is looked at
    before Celery sees the message: Celery lets the body say how it came (`delivery_info`), what to send next in the
    name of whoever does it (a canvas), and has tasks of its own that send whatever they are given.
    """
    if spec is None:
        return "it is no task of the catalogue"
    if not is_addressed(spec, message.delivery_info):
        return "that is not its own"
    if not _is_sane(message.headers):
        return "a header is not what it should be"
    body = message.payload
    if not isinstance(body, list) or len(body) != 3 or not isinstance(body[2], dict | None):
        return "its body is not of Celery's second protocol"
    more: dict[str, Any] = body[2] or {}
    if not more.keys() <= _CANVAS:
        return "its body tells more than a task's may"
    if spec in ANSWERS and any(more.get(name) or message.headers.get(name) for name in _CANVAS):
        return "an answer may have nothing follow it"
    return None


def _is_sane(headers: dict[str, Any]) -> bool:
    task_id = headers.get("id")
    numbers = [headers.get(name) for name in ("retries", PUBLISHED_AT, FIRST, DEADLINE)]
    named = isinstance(task_id, str) and 0 < len(task_id) <= _ID_LENGTH
    return named and all(isinstance(number, int | None) for number in numbers)
