"""The word that every worker hears: a replay is cancelled. By a fanout exchange, with a queue for each worker.

A worker that starts later and picks up a cancelled part makes it in vain, and its answer is thrown away.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any, Final

from celery import Celery, bootsteps
from kombu import Consumer, Message, Queue

from control.bus.cancel import cancellations
from control.bus.publish import publisher_of
from control.bus.topology import BROADCASTS, exchange_of, on_rabbitmq

log = logging.getLogger("afterlive.worker")
_CANCEL: Final = "cancel"


def broadcast_cancel(app: Celery, replay_id: str, run: int) -> None:
    """Tell every worker. Raises BrokerUnavailable."""
    publisher_of(app).broadcast({"kind": _CANCEL, "replay_id": replay_id, "run": run})


def listen(app: Celery) -> None:
    """Have the workers of `app` hear broadcasts."""

    class Listen(bootsteps.ConsumerStep):
        """On the connection the tasks come by."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def get_consumers(self, channel: Any) -> list[Consumer]:
            # A name of its own each time: the broker may not have noticed yet that the one before is gone. Where it
            # can, the broker names it: a worker needs no right to make anything else.
            name = "" if on_rabbitmq(app.conf.broker_url) else f"afterlive.worker.{uuid.uuid4().hex}"
            exchange = exchange_of(BROADCASTS, app.conf.broker_url)
            queue = Queue(name, exchange, exclusive=True, auto_delete=True, durable=False)
            return [Consumer(channel, [queue], on_message=_hear, accept=["json"], no_ack=True)]

    app.steps["consumer"].add(Listen)


def _hear(message: Message) -> None:
    try:
        word = message.decode()
        if word.get("kind") == _CANCEL:
            cancellations.cancel(str(word["replay_id"]), int(word["run"]))
        else:
            log.warning("a broadcast of a kind nobody knows: %s", word.get("kind"))
    except Exception as error:  # noqa: BLE001  (whatever was sent, the worker goes on)
        log.warning("a broadcast cannot be read: %s", error)
