"""The most telling faults in one run, short enough to belong to every run of the tests. All of them: `make chaos`."""

from __future__ import annotations

import time

import pytest

from tests.chaos.field import Field

FIELD = {"recording_seconds": (14, 20)}


@pytest.mark.timeout(600)
def test_workers_and_broker_are_killed_and_the_database_is_cut_off(field: Field) -> None:
    with field.trouble("a media and a fast worker killed, the broker killed, the database cut off for 4 s"):
        field.kill("media")
        field.kill("fast")
        field.broker.kill()
        field.broker.start()
        field.links["database"].set("drop")
        time.sleep(4)
        field.links["database"].set("pass")
