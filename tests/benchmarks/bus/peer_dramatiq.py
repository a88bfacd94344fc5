"""Dramatiq as its guide has it: a module with a broker and an actor."""

from __future__ import annotations

import os
from typing import Final

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.benchmarks.bus.marks import mark

BROKER: Final = "BENCH_DRAMATIQ"

broker = RabbitmqBroker(url=os.environ.get(BROKER, "amqp://127.0.0.1"))
dramatiq.set_broker(broker)


@dramatiq.actor
def note(sent: float) -> None:
    mark(sent)
