"""What was watched and sold, counted."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from control.bus import names
from control.bus.task import task
from control.bus.work import Work
from control.errors import ConfigurationError, PayloadInvalid
from control.ledger import days, reports, tasks
from control.ledger.base import now
from control.ledger.engine import open_ledger
from control.settings import current
from control.storage import open_store
from notify_worker.analytics.aggregate import count
from notify_worker.reports.make import make


def _nothing(session: Session) -> None:
    """Counting again changes nothing; what is left is to note that it was done."""


@task(names.AGGREGATE_STREAM_ANALYTICS)
def aggregate_stream_analytics(stream_id: str, work: Work) -> None:
    """Count a stream from all its events."""
    ledger = open_ledger(current().ledger.url)
    count(ledger, stream_id, grace_seconds=current().analytics.grace_seconds, check=work.check)
    tasks.once(ledger, _nothing)


@task(names.GENERATE_DAILY_REPORT)
def generate_daily_report(work: Work, day: str | None = None, zone: str | None = None, resend: bool = False) -> None:
    """Make the reports of a day. Without one, which is how the clock asks: have those made that are due."""
    settings = current()
    ledger = open_ledger(settings.ledger.url)
    there = days.zone_of(zone or settings.report.zone)
    if there is None and zone:
        raise PayloadInvalid(task=names.GENERATE_DAILY_REPORT.name, reason=f"there is no time zone {zone}")
    if there is None:
        raise ConfigurationError(
            setting="AFTERLIVE_REPORT_ZONE", reason=f"there is no time zone {settings.report.zone}"
        )
    if day is None:
        tasks.once(ledger, lambda session: _ask(session, there, settings.report.hour))
        return
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise PayloadInvalid(task=names.GENERATE_DAILY_REPORT.name, reason="the day is no date") from None
    make(ledger, open_store(settings.storage), settings, wanted, there, resend=resend, check=work.check)


def _ask(session: Session, zone: ZoneInfo, hour: int) -> None:
    reports.request_due(session, now(), zone, hour)
