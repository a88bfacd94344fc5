"""How a worker consumes from RabbitMQ, where Celery's own way does not fit."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.worker.consumer import Consumer as CeleryConsumer

log = logging.getLogger("afterlive.worker")
_NOT_OURS: Final = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(CeleryConsumer):
    """Declares no delays (`afterlive topology` did, and workers have no right to), and loses no message it cannot
    read: Celery would acknowledge it, here it goes to `failed_tasks`."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc,valid-type]  # it is a class, whatever the stubs say
        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if step != _NOT_OURS]  # noqa: RUF012

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        log.error("a message of %s cannot be read (%s): rejected", message.delivery_info.get("routing_key"), exc)
        message.reject(requeue=False)
