"""Orders and payments while everything is killed: stock, money and mails add up to the last one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import brokers, services
from tests.chaos.market import market_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


def test_it_adds_up_though_workers_broker_and_database_are_killed(
    tmp_path: Path, redis_server: brokers.RedisServer, s3_server: services.S3Server
) -> None:
    folders = {name: tmp_path / name for name in ("broker", "database", "home")}
    for folder in folders.values():
        folder.mkdir()
    with (
        brokers.rabbitmq(folders["broker"]) as broker,
        services.postgresql_server(folders["database"]) as database,
        market_of(folders["home"], broker, redis_server, database, s3_server, reservation_seconds=30) as market,
    ):
        market.open(5000, 5000, 5000, 250)
        faults = [
            *(("fast",), ("notify",), ("api",), ("broker",), ("database",)),
            *(("fast", "notify"), ("database",), ("broker",), ("notify",), ("api", "fast", "notify")),
        ]
        market.sell(2000, faults, settle_seconds=420)
