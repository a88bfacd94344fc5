"""Workers as production runs them, with tasks of the tests' own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr

from control.bus.app import make_app
from control.bus.names import TaskSpec
from control.bus.publish import publisher_of, send
from control.ledger import failures
from control.ledger.engine import Ledger
from control.ledger.task_models import FailedTask
from control.settings import BusSettings
from tests import brokers, chores, services
from tests.bus import catalogued
from tests.platform import Platform, platform


@dataclass
class Works:
    """Running tiers, a way to send them work, and the ledger that tells what became of it."""

    platform: Platform
    app: Celery
    ledger: Ledger

    def send(self, spec: TaskSpec, **payload: Any) -> str:
        return send(self.app, spec, payload)

    def effects(self) -> tuple[int, int]:
        return chores.effects(self.ledger)

    def failed(self, task_id: str) -> FailedTask | None:
        with self.ledger.read() as session:
            return next((row for row in failures.page(session, limit=1000) if row.task_id == task_id), None)

    def until(self, condition: Any, what: str, seconds: float = 30) -> Any:
        return self.platform.wait(condition, what, seconds=seconds)


@pytest.fixture
def works(
    tmp_path: Path,
    rabbitmq: brokers.RabbitMQ,
    broker_url: str,
    redis_server: brokers.RedisServer,
    postgresql_server: services.PostgresqlServer,
    s3_server: services.S3Server,
) -> Iterator[Works]:
    ledger = Ledger(postgresql_server.database())
    ledger.upgrade()
    chores.prepare(ledger)
    app = make_app(
        BusSettings(_env_file=None, broker_url=SecretStr(broker_url), result_backend=SecretStr(redis_server.url))
    )
    root = Path(__file__).parents[3]
    program = (sys.executable, "-m", "tests.chore_worker")
    with catalogued(*chores.SPECS), platform(
        tmp_path, rabbitmq, redis_server, ledger.url, s3_server,
        broker_url=broker_url, program=program, PYTHONPATH=str(root),
    ) as running:  # fmt: skip
        yield Works(running, app, ledger)
    publisher_of(app).close()
    ledger.close()
