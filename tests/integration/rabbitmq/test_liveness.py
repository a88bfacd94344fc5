"""A worker that is alive and connected and takes nothing is found out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from celery import Celery
from celery.worker import state

from control.bus import health
from control.bus.app import make_app
from control.bus.health import HealthServer, Pulse
from control.bus.names import HIGH
from control.bus.probe import Probe
from control.bus.publish import publisher_of, send
from control.settings import BusSettings
from tests import chores
from tests.bus import until


@dataclass
class Consuming:
    app: Celery
    worker: Any
    probe: Probe
    pulse: Pulse

    def stop_consuming(self) -> None:
        """As it happens after some losses of connection: the loop goes on, and nobody told the broker."""
        self.worker.consumer.call_soon(self.worker.consumer.task_consumer.cancel)
        until(lambda: not self.probe.look(), "the consumer is gone")


@pytest.fixture
def consuming(broker_url: str) -> Iterator[Consuming]:
    app = make_app(BusSettings(_env_file=None, broker_url=broker_url))
    worker: Any = app.WorkController(
        hostname="fast@tests", pool_cls="threads", concurrency=2, queues=[HIGH], loglevel=logging.WARNING,
        without_mingle=True, without_gossip=True,
    )  # fmt: skip
    thread = threading.Thread(target=worker.start, daemon=True)
    thread.start()
    pulse = Pulse()
    probe = Probe(app, worker, [HIGH], pulse)
    until(lambda: worker.consumer and probe.look(), "it consumes", seconds=30)
    yield Consuming(app, worker, probe, pulse)
    state.should_stop = 0  # type: ignore[assignment]  # an exit status, as Celery's own signal handlers set it
    worker.consumer.call_soon(lambda: None)  # it looks now, not at its next heartbeat
    thread.join(10)
    state.should_stop = None
    publisher_of(app).close()


def test_it_consumes(consuming: Consuming) -> None:
    assert consuming.probe.look()  # nothing came, for there was nothing


def test_it_takes_nothing_though_there_is_work(consuming: Consuming) -> None:
    consuming.stop_consuming()
    send(consuming.app, chores.SELL, {"number": 1})
    assert not consuming.probe.look()


def test_what_the_health_check_says(consuming: Consuming, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HealthServer("127.0.0.1", 0, consuming.pulse)
    server.start()
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/healthz")
        assert (answer.status_code, answer.text.split(" (")[0]) == (200, "ok")
        monkeypatch.setattr(health, "_SILENT_SECONDS", 0.0)
        answer = httpx.get(f"http://127.0.0.1:{server.port}/healthz")
        assert (answer.status_code, answer.text.split(" (")[0]) == (503, "it does not consume")
    finally:
        server.stop()
