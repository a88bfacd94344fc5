"""One fault after the other, under load. `make chaos` runs these, and shows how long each took to recover from."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.field import Field
from tests.chaos.proxy import Mood

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", ["api", "fast", "notify", "media", "beat"])
def test_a_process_is_killed(field: Field, name: str) -> None:
    with field.trouble(f"{name} killed"):
        if name == "media":
            field.until(field.busy, "it is in the middle of a part")
        field.kill(name)


def test_all_processes_are_killed_again_and_again(field: Field) -> None:
    with field.trouble("every process killed, three times"):
        for _ in range(3):
            for name in field.processes:
                field.kill(name)
            time.sleep(4)


def test_the_broker_is_killed(field: Field) -> None:
    with field.trouble("broker killed"):
        field.broker.kill()
        field.broker.start()


def test_the_broker_is_away_for_a_while(field: Field) -> None:
    with field.trouble("broker killed, away for 20 s"):
        field.broker.kill()
        time.sleep(20)
        field.broker.start()


def test_the_database_is_killed(field: Field) -> None:
    with field.trouble("PostgreSQL killed"):
        field.database.kill()
        field.database.start()


def test_the_database_is_away_for_longer_than_tasks_are_tried_again(field: Field) -> None:
    """That the ledger is away is no failure of those who wait for it."""
    with field.trouble("PostgreSQL killed, away for 40 s"):
        field.database.kill()
        time.sleep(40)
        field.database.start()


def test_redis_forgets_everything_and_is_killed(field: Field) -> None:
    with field.trouble("Redis flushed and killed, away for 8 s"):
        field.redis.client().flushall()
        field.redis.kill()
        time.sleep(8)
        field.redis.start()


def test_the_broker_has_no_memory_left(field: Field) -> None:
    with field.trouble("memory alarm for 12 s"):
        field.broker.ctl("set_vm_memory_high_watermark", "0.000001")
        assert "resource_limit" in field.broker.ctl("eval", "rabbit_alarm:get_alarms().")
        time.sleep(12)
        field.broker.ctl("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize(("mood", "seconds"), [("drop", 8), ("reset", 8), ("black hole", 25), ("slow", 10)])
@pytest.mark.parametrize("link", ["broker", "database", "s3"])
def test_the_network_is_cut(field: Field, link: str, mood: Mood, seconds: float) -> None:
    with field.trouble(f"way to the {link}: {mood} for {seconds} s"):
        field.links[link].set(mood)
        time.sleep(seconds)
        field.links[link].set("pass")


def test_the_disk_for_work_in_progress_is_full(field: Field) -> None:
    if not field.scratch_is_small:
        pytest.skip("filling a disk takes one of its own, which only root may mount (tmpfs), and not everywhere")
    with field.trouble("scratch full for 10 s"):
        ballast = field.scratch / "ballast"
        fill(ballast, 10)
        ballast.unlink()


def fill(path: Path, seconds: float) -> None:
    """Leave no byte free, and take those that become free."""
    end = time.monotonic() + seconds
    with path.open("wb", buffering=0) as file:
        while time.monotonic() < end:
            with suppress(OSError):
                while file.write(bytes(65536)):
                    pass
            with suppress(OSError):
                while file.write(bytes(512)):
                    pass
            time.sleep(0.02)


def test_the_object_store_is_killed(field: Field) -> None:
    with field.trouble("S3 killed, away for 8 s"):
        field.s3.kill()
        time.sleep(8)
        field.s3.start()
