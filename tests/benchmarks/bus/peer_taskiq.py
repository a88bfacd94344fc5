"""Taskiq as its guide has it: a module with a broker and a task."""

from __future__ import annotations

import os
from typing import Final

from taskiq_aio_pika import AioPikaBroker

from tests.benchmarks.bus.marks import mark

BROKER: Final = "BENCH_TASKIQ"

broker = AioPikaBroker(os.environ.get(BROKER, "amqp://127.0.0.1"))


@broker.task
async def note(sent: float) -> None:
    mark(sent)
