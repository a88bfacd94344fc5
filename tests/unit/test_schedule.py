"""The clock's table, and when its entries are due."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.beat import ScheduleEntry
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from control.bus.app import make_app
from control.bus.beat import Clock, LedgerScheduler
from control.cli.beat import beat
from control.settings import BusSettings, Settings
from pipelines.schedule import SCHEDULE


def is_due(name: str, last_run_at: datetime, now: datetime) -> bool:
    """Whether an entry of the table is due at `now`."""
    made = ScheduleEntry(**SCHEDULE[name], name=name, app=make_app(BusSettings(_env_file=None)))
    schedule: Any = copy(made.schedule)  # the table's own is the process's: no test's `now` outlives it
    schedule.nowfun = lambda: now
    return bool(schedule.is_due(last_run_at)[0])


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        ("2026-03-01 03:30", "2026-03-02 03:29", False),
        ("2026-03-01 03:30", "2026-03-02 03:30", True),
        ("2026-03-01 03:31", "2026-03-02 03:30", True),  # late yesterday is no reason to be late today
        ("2026-03-02 03:30", "2026-03-02 23:59", False),
        ("2026-02-01 03:30", "2026-03-02 12:00", True),  # missed while none ran
    ],
)
def test_old_tasks_are_forgotten_at_half_past_three(last: str, now: str, due: bool) -> None:
    at, seen = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (last, now))
    assert is_due("forget-tasks", at, seen) is due


@given(missed=st.timedeltas(timedelta(days=1), timedelta(days=400)))
def test_however_much_was_missed_it_is_due_once(missed: timedelta) -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    for name in SCHEDULE:
        assert is_due(name, now - missed, now)
        assert not is_due(name, now, now)


def test_a_task_nobody_knows_is_found_at_the_start(settings: Settings) -> None:
    app = make_app(settings.bus, schedule={"odd": {"task": "pipelines.nobody", "schedule": 1.0}})
    with pytest.raises(KeyError, match=r"pipelines\.nobody"):
        LedgerScheduler(app)


def test_the_clock_stops_at_once_even_before_it_started(settings: Settings) -> None:
    clock = Clock(make_app(settings.bus), look_every_seconds=3600)
    clock.stop()
    clock.run()


def test_the_command_shows_the_table() -> None:
    shown = CliRunner().invoke(beat, ["--show"], catch_exceptions=False).output
    for name, row in SCHEDULE.items():
        assert name in shown
        assert row["task"] in shown
