"""Pure: when days begin and end in a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_HOUR: Final = timedelta(hours=1)
_MOST: Final = 7


def zone_of(name: str) -> ZoneInfo | None:
    """The zone, by its name in the IANA data base; None where there is no such."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # the last two: what is no name of a zone but a path
        return None


def bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When it begins and when the next one does, in UTC: 24 hours later mostly, 23 or 25 where clocks change. A day
    that a zone left out has no length."""
    begin = datetime.combine(day, time(), zone).astimezone(UTC)
    return begin, datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def hours(day: date, zone: ZoneInfo) -> list[str]:
    """What clocks show at the begin of each hour of the day. The one that comes twice is there twice."""
    begin, end = bounds(day, zone)
    return [f"{at.astimezone(zone):%H:%M}" for at in _each_hour(begin, end)]


def hour_of(at: datetime, begin: datetime) -> int:
    """Which of the hours since `begin` a moment is in."""
    return (at - begin) // _HOUR


def due(at: datetime, zone: ZoneInfo, hour: int, last: date | None) -> list[date]:
    """The days to report of at a moment, oldest first: those after `last` that ended, seven at most; the last alone
    where there was no report yet. A day is over at `hour` of the next."""
    local = at.astimezone(zone)
    newest = local.date() - timedelta(days=1 if local.hour >= hour else 2)
    if last is None:
        return [newest]
    oldest = max(last + timedelta(days=1), newest - timedelta(days=_MOST - 1))
    return [oldest + timedelta(days=number) for number in range((newest - oldest).days + 1)]


def _each_hour(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += _HOUR
