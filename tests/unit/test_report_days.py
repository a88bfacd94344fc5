"""Days of time zones: those of 23 and of 25 hours, and which of them are to be reported of."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from control.ledger import days

TAIPEI = ZoneInfo("Asia/Taipei")


@pytest.mark.parametrize(
    ("zone", "day", "begin", "hours"),
    [
        ("Asia/Taipei", "2026-11-24", "2026-11-23T16:00", 24),
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00", 25),
        ("Asia/Kolkata", "2026-01-01", "2025-12-31T18:30", 24),
        # Clocks change at midnight: the first has none, the second has two.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00", 23),
        ("America/Havana", "2026-11-01", "2026-11-01T04:00", 25),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00", 0),  # across the date line: the day that never was
    ],
)
def test_a_day_is_as_long_as_it_is_there(zone: str, day: str, begin: str, hours: int) -> None:
    start, end = days.bounds(date.fromisoformat(day), ZoneInfo(zone))
    assert start == datetime.fromisoformat(begin).replace(tzinfo=UTC)
    assert end - start == timedelta(hours=hours)
    assert len(days.hours(date.fromisoformat(day), ZoneInfo(zone))) == hours


def test_each_moment_is_in_one_day() -> None:
    zone = ZoneInfo("Europe/Berlin")
    first = date(2026, 1, 1)
    for number in range(365):
        day = first + timedelta(days=number)
        assert days.bounds(day, zone)[1] == days.bounds(day + timedelta(days=1), zone)[0]


def test_hours_are_what_clocks_show() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert days.hours(date(2026, 3, 29), berlin)[:4] == ["00:00", "01:00", "03:00", "04:00"]
    assert days.hours(date(2026, 10, 25), berlin)[1:5] == ["01:00", "02:00", "02:00", "03:00"]
    begin, _ = days.bounds(date(2026, 10, 25), berlin)
    assert days.hour_of(datetime(2026, 10, 25, 1, 30, tzinfo=UTC), begin) == 3  # the second 02:30


@pytest.mark.parametrize("name", ["Asia/Taipeh", "", "../etc/passwd", "/etc/passwd", "Asia", "Asia/\x00"])
def test_what_is_no_zone(name: str) -> None:
    assert days.zone_of(name) is None


@pytest.mark.parametrize(
    ("at", "last", "due"),
    [
        ("2026-11-23T18:00", "2026-11-22", ["2026-11-23"]),  # 02:00 of the 24th
        ("2026-11-23T17:59", "2026-11-22", []),
        ("2026-11-23T17:59", "2026-11-21", ["2026-11-22"]),
        ("2026-11-23T18:00", None, ["2026-11-23"]),  # no history is made up
        ("2026-11-23T18:00", "2026-11-20", ["2026-11-21", "2026-11-22", "2026-11-23"]),
        ("2026-11-23T18:00", "2026-11-30", []),
    ],
)
def test_days_are_reported_of_when_they_are_over(at: str, last: str | None, due: list[str]) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    known = date.fromisoformat(last) if last else None
    assert [day.isoformat() for day in days.due(moment, TAIPEI, 2, known)] == due


def test_a_long_outage_is_made_up_for_by_a_week() -> None:
    moment = datetime(2026, 11, 23, 18, tzinfo=UTC)
    found = days.due(moment, TAIPEI, 2, date(2026, 1, 1))
    assert (found[0], found[-1], len(found)) == (date(2026, 11, 17), date(2026, 11, 23), 7)
