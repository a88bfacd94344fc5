"""Money and stock add up though workers and the API are killed: short enough for every run. More: `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import brokers, services
from tests.chaos.market import market_of


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_it_adds_up_though_workers_and_the_api_are_killed(
    tmp_path: Path,
    rabbitmq: brokers.RabbitMQ,
    redis_server: brokers.RedisServer,
    postgresql_server: services.PostgresqlServer,
    s3_server: services.S3Server,
) -> None:
    with market_of(tmp_path, rabbitmq, redis_server, postgresql_server, s3_server, reservation_seconds=6) as market:
        market.open(1000, 1000, 1000, 15)
        market.sell(60, [("fast", "notify"), ("api",)], settle_seconds=120)
