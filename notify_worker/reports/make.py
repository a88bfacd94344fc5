"""The reports of a day: figures, then files, then the ledger and the mails in one transaction."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session as Transaction

from control.bus import names
from control.bus.context import current_delivery
from control.ledger import notices, reports, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.figures import DayFigures
from control.settings import Settings
from control.storage import ObjectStore
from notify_worker.reports import sheet
from notify_worker.reports.figures import collect

log = logging.getLogger("afterlive.reports")


def make(
    ledger: Ledger,
    store: ObjectStore,
    settings: Settings,
    day: date,
    zone: ZoneInfo,
    *,
    resend: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[str, DayFigures]:
    """Make the day's reports, whether or not there are any. Who was mailed one gets none again, unless `resend`."""
    as_of = now()
    grace_seconds = settings.analytics.grace_seconds
    with tempfile.TemporaryDirectory(prefix="afterlive-report-") as folder:
        with ledger.read() as session:
            sheets = collect(session, day, zone, grace_seconds=grace_seconds, check=check)
            whole = sheets[reports.WHOLE]
            files = sheet.write(session, Path(folder), whole.begin, whole.end, zone, sheets, check)
        keys = {seller_id: sheet.key_of(whole.day, whole.zone, seller_id) for seller_id in sheets}
        for seller_id, key in keys.items():
            check()
            store.put_file(key, files[seller_id])
    tasks.once(ledger, lambda session: _keep(session, settings, sheets, keys, as_of, resend))
    log.info("day=%s zone=%s sellers=%d orders=%d", whole.day, whole.zone, len(sheets) - 1, whole.orders)
    return sheets


def _keep(
    session: Transaction,
    settings: Settings,
    sheets: dict[str, DayFigures],
    keys: dict[str, str],
    as_of: datetime,
    resend: bool,
) -> None:
    delivery = current_delivery()
    # Another one of this run: a message that comes twice is still one run.
    again = f":{delivery.task_id if delivery else as_of.isoformat()}" if resend else ""
    for seller_id, figures in sheets.items():
        reports.save(session, figures, keys[seller_id], as_of)
        if figures.is_empty:
            continue  # nobody needs a mail to know that
        for address, locale in _readers(session, settings, seller_id):
            notices.request(
                session,
                names.SEND_DAILY_REPORT_EMAIL,
                key=f"daily-report:{figures.day}:{figures.zone}:{seller_id}:{notices.address_hash(address)[:16]}{again}",
                to=address,
                template="daily_report",
                locale=locale,
                data=dict(reports.by_mail(figures, keys[seller_id])),
                about=f"report-{figures.day}",
            )


def _readers(session: Transaction, settings: Settings, seller_id: str) -> list[tuple[str, str]]:
    if not seller_id:
        return [(address, settings.report.locale) for address in settings.notify.admins]
    contact = notices.contact(session, seller_id)
    return [(contact.email, contact.locale)] if contact else []
