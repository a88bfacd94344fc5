"""The clock: real schedulers on real databases, with schedules quick enough to wait for."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery.schedules import crontab, schedule
from sqlalchemy import make_url, select, update

from control.bus import names
from control.bus.app import PIPELINES, make_app
from control.bus.beat import LedgerScheduler
from control.bus.embedded import Embedded
from control.ledger.engine import Ledger
from control.ledger.task_models import ScheduleRow, TaskRow
from control.settings import LedgerSettings, Settings, use
from pipelines.schedule import SCHEDULE
from tests.bus import until
from tests.services import PostgresqlServer, stop

EVERY_SECONDS = 0.2
TICK = {"task": names.RECONCILE.name, "schedule": EVERY_SECONDS}
DAILY = {"task": names.FORGET_TASKS.name, "schedule": crontab(minute="30", hour="3")}

# `afterlive beat` with another table.
BEAT = """
import sys
from control.cli import beat, main
from pipelines.schedule import SCHEDULE
SCHEDULE.clear()
SCHEDULE["tick"] = {"task": sys.argv[1], "schedule": float(sys.argv[2])}
beat._LOOK_EVERY_SECONDS = 0.1
sys.argv = ["afterlive", "beat"]
main()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Ledger]:
    """Of both kinds; the one of the settings in use."""
    url = settings.ledger.url
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").database()
        use(settings.model_copy(update={"ledger": LedgerSettings(_env_file=None, url=url)}))
    made = Ledger(url)
    made.upgrade()
    yield made
    made.close()


def scheduler(settings: Settings, **entries: dict[str, Any]) -> LedgerScheduler:
    return LedgerScheduler(make_app(settings.bus, schedule=entries), max_interval=0.1)


def ticks(ledger: Ledger, spec: names.TaskSpec = names.RECONCILE) -> list[datetime]:
    """When it was sent, in order."""
    with ledger.read() as session:
        return list(session.scalars(select(TaskRow.created_at).where(TaskRow.task == spec.name).order_by("created_at")))


def row(ledger: Ledger, name: str) -> ScheduleRow | None:
    with ledger.read() as session:
        return session.get(ScheduleRow, name)


def as_if_last(ledger: Ledger, name: str, ago: timedelta) -> None:
    """None ran since."""
    with ledger.write() as session:
        session.execute(update(ScheduleRow).where(ScheduleRow.name == name).values(last_run_at=_now() - ago))


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def beat(ledger: Ledger, folder: Path, *, every_seconds: float = EVERY_SECONDS) -> Iterator[subprocess.Popen[bytes]]:
    """`afterlive beat`, in a process of its own, until the block ends."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AFTERLIVE_")}
    with (folder / "beat.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", BEAT, names.RECONCILE.name, str(every_seconds)],
            env=env | {"AFTERLIVE_DATABASE_URL": ledger.url, "PYTHONPATH": str(Path.cwd())},
            cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield process
    finally:
        stop(process)


class Broken(schedule):
    """As a sun that does not rise."""

    def is_due(self, last_run_at: datetime) -> Any:  # noqa: ARG002  (Celery's)
        raise RuntimeError("no such moment")


# --- when things happen -----------------------------------------------------------------------------------------------


def test_what_is_new_counts_from_now(ledger: Ledger, settings: Settings) -> None:
    clock = scheduler(settings, tick=TICK, daily=DAILY)
    clock.tick()
    assert ticks(ledger) == ticks(ledger, names.FORGET_TASKS) == []
    until(lambda: clock.tick() and ticks(ledger), "the first tick")
    assert ticks(ledger, names.FORGET_TASKS) == []


@pytest.mark.parametrize(("entry", "spec"), [(TICK, names.RECONCILE), (DAILY, names.FORGET_TASKS)])
def test_what_was_missed_is_made_up_for_once(
    ledger: Ledger, settings: Settings, entry: dict[str, Any], spec: names.TaskSpec
) -> None:
    slow = entry | ({"schedule": 3600.0} if entry is TICK else {})
    scheduler(settings, it=slow).tick()
    as_if_last(ledger, "it", timedelta(days=5))
    clocks = [scheduler(settings, it=slow) for _ in range(2)]
    for clock in clocks * 3:
        clock.tick()
    assert len(ticks(ledger, spec)) == 1


def test_many_at_the_same_moment_are_one(ledger: Ledger, settings: Settings) -> None:
    clocks = [scheduler(settings, it=TICK | {"schedule": 3600.0}) for _ in range(8)]
    clocks[0].tick()
    for number in range(1, 6):
        as_if_last(ledger, "it", timedelta(days=1))
        for clock in clocks:
            clock._catch_up()  # all have seen that it is due
        start = threading.Barrier(len(clocks))

        def decide(clock: LedgerScheduler, start: threading.Barrier = start) -> None:
            start.wait()
            clock.apply_async(clock.data["it"])

        threads = [threading.Thread(target=decide, args=[clock]) for clock in clocks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ticks(ledger)) == number


def test_one_entry_that_cannot_be_told_does_not_stop_the_others(ledger: Ledger, settings: Settings) -> None:
    clock = scheduler(settings, broken={"task": names.FORGET_TASKS.name, "schedule": Broken(1.0)}, tick=TICK)
    clock.tick()
    as_if_last(ledger, "tick", timedelta(seconds=1))
    clock.tick()
    assert len(ticks(ledger)) == 1


# --- processes --------------------------------------------------------------------------------------------------------


def test_two_beats_tick_once_and_one_that_is_killed_is_not_missed(ledger: Ledger, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()

    def wins(folder: Path) -> int:
        return (folder / "beat.log").read_text().count("tick=tick")

    with beat(ledger, folders[0]) as first, beat(ledger, folders[1]) as second:
        until(lambda: all(wins(folder) >= 2 for folder in folders), "now this one is quicker, now that", seconds=30)
        first.kill()
        first.wait()
        seen = len(ticks(ledger))
        until(lambda: len(ticks(ledger)) >= seen + 5, "the other goes on")
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 0
    happened = ticks(ledger)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(happened)]
    # Two that ticked for the same moment would be next to each other. (One that is late is nearer to the next.)
    assert min(gaps) > EVERY_SECONDS * 0.2
    found = row(ledger, "tick")
    assert found is not None
    assert found.runs == len(happened)


def test_it_stops_at_once_though_nothing_is_due_for_long(ledger: Ledger, tmp_path: Path) -> None:
    with beat(ledger, tmp_path, every_seconds=3600) as process:
        until(lambda: row(ledger, "tick"), "it runs", seconds=30)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - asked < 3


# --- the database is away ---------------------------------------------------------------------------------------------


def test_while_postgresql_is_away_it_waits_and_goes_on(
    settings: Settings, tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    ledger = Ledger(postgresql_server.database())
    ledger.upgrade()
    ledger.close()  # a connection that was used a moment ago is believed to stand still
    name = make_url(ledger.url).database

    def allow(word: str) -> None:
        address = f"host=127.0.0.1 port={postgresql_server.port} user=afterlive dbname=postgres"
        with psycopg.connect(address, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {word}'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def waits() -> int:
        return (tmp_path / "beat.log").read_text().count("waits for the database")

    allow("false")
    with beat(ledger, tmp_path) as process:
        until(lambda: waits() >= 2, "it waits from the start", seconds=30)
        allow("true")
        until(lambda: len(ticks(ledger)) >= 2, "it goes on")
        ledger.close()
        before = waits()
        allow("false")
        until(lambda: waits() >= before + 2, "it waits again")
        assert process.poll() is None
        allow("true")
        seen = len(ticks(ledger))
        until(lambda: len(ticks(ledger)) >= seen + 2, "it goes on again")
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(ticks(ledger))]
    assert min(gaps) > EVERY_SECONDS * 0.8  # what was missed meanwhile was made up for once
    ledger.close()


def test_a_tick_whose_transaction_failed_is_not_lost(settings: Settings, tmp_path: Path) -> None:
    """What is due once a day must not wait for tomorrow because the database blinked at that moment."""
    ledger = Ledger(settings.ledger.url)
    ledger.upgrade()
    clock = scheduler(settings, daily=DAILY)
    clock.tick()
    as_if_last(ledger, "daily", timedelta(days=2))
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    clock.tick()
    assert ticks(ledger, names.FORGET_TASKS) == []
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.execute("DROP TRIGGER full")
    clock.tick()
    assert len(ticks(ledger, names.FORGET_TASKS)) == 1
    ledger.close()


# --- embedded ---------------------------------------------------------------------------------------------------------


def test_embedded_mode_makes_up_for_a_daily_run(settings: Settings) -> None:
    """Who runs the platform on a laptop has it off at half past three."""
    ledger = Ledger(settings.ledger.url)
    with Embedded(settings, [PIPELINES]):
        until(lambda: row(ledger, "forget-tasks"), "the clock began")
    assert ticks(ledger, names.FORGET_TASKS) == []
    as_if_last(ledger, "forget-tasks", timedelta(days=3))
    with Embedded(settings, [PIPELINES]):
        until(lambda: done(ledger, names.FORGET_TASKS), "it was made up for")
    assert len(ticks(ledger, names.FORGET_TASKS)) == 1
    ledger.close()


def done(ledger: Ledger, spec: names.TaskSpec) -> bool:
    with ledger.read() as session:
        return "SUCCESS" in session.scalars(select(TaskRow.state).where(TaskRow.task == spec.name)).all()


def test_the_table_is_what_beat_knows(ledger: Ledger, settings: Settings) -> None:
    scheduler(settings, **SCHEDULE).tick()
    with ledger.read() as session:
        assert set(session.scalars(select(ScheduleRow.name))) == set(SCHEDULE)
