"""Asks a worker, by way of the broker, whether it consumes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from celery.worker import state

from control.bus.declare import count
from control.bus.health import Pulse

log = logging.getLogger("afterlive.worker")
_EVERY_SECONDS: Final = 10.0


class Probe:
    """A thread that looks every few seconds: where the broker sees this worker's consumers, and the worker either has
    its hands full, took something since, or there was nothing to take, the worker lives."""

    def __init__(self, app: Celery, worker: Any, queues: Sequence[str], pulse: Pulse) -> None:
        self._app = app
        self._worker = worker
        self._queues = queues
        self._pulse = pulse
        self._stopped = threading.Event()
        self._taken = 0
        self._thread = threading.Thread(target=self._loop, name="probe", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def look(self) -> bool:
        """Whether it consumes, as far as can be told now."""
        consumer = self._worker.consumer
        tasks = consumer.task_consumer if consumer else None
        if tasks is None or not tasks.channel or not tasks.channel.is_open or not tasks._active_tags:
            return False
        taken, before = sum(state.total_count.values()), self._taken
        self._taken = taken
        if len(state.active_requests) >= self._worker.concurrency or taken != before:
            return True
        with self._app.connection_for_read() as connection:
            found = [count(connection, queue) for queue in self._queues]
        return all(seen is not None and seen[0] == 0 and seen[1] > 0 for seen in found)

    def _loop(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
            started = time.monotonic()
            try:
                alive = self.look()
            except Exception as error:  # noqa: BLE001  (the broker is away: what that means is the pulse's to say)
                log.debug("the probe got no answer: %s", error)
                alive = False
            if alive and time.monotonic() - started < _EVERY_SECONDS:
                self._pulse.beat()
