"""Daily reports: what is kept of them, and who asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import cast
from zoneinfo import ZoneInfo

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import NotFound
from control.ledger import days, outbox
from control.ledger.analytics_models import DailyReport
from control.ledger.base import insert_into
from control.ledger.figures import CurrencyTotal, DayFigures

WHOLE = ""
"""In place of a seller: all of them."""


def get(session: Session, day: str, zone: str, seller_id: str = WHOLE) -> DailyReport:
    """Raises NotFound."""
    found = session.get(DailyReport, (day, zone, seller_id), populate_existing=True)
    if found is None:
        raise NotFound(noun="report of", key=f"{day} in {zone}" + (f" for {seller_id}" if seller_id else ""))
    return found


def figures_of(session: Session, day: str, zone: str) -> dict[str, DayFigures]:
    """What was reported of the day, by seller."""
    query = select(DailyReport.seller_id, DailyReport.data).where(DailyReport.day == day, DailyReport.zone == zone)
    return {seller_id: DayFigures.model_validate(data) for seller_id, data in session.execute(query)}


def save(session: Session, figures: DayFigures, csv_key: str, as_of: datetime) -> None:
    """Keep the report, unless there is one that was made of newer facts."""
    table = cast(Table, DailyReport.__table__)
    key = {"day": figures.day, "zone": figures.zone, "seller_id": figures.seller_id or WHOLE}
    made = {"data": figures.model_dump(mode="json"), "csv_key": csv_key, "created_at": as_of}
    row = insert_into(session, DailyReport).values(key | made)
    older = table.c.created_at <= row.excluded.created_at
    session.execute(row.on_conflict_do_update(index_elements=list(key), set_=made, where=older))


def request(session: Session, day: date, zone: str, *, resend: bool = False) -> str:
    """Have the reports of the day made (again); the task's id. `resend`: and mailed, also to who had it."""
    payload = {"day": day.isoformat(), "zone": zone, "resend": resend}
    return outbox.add(session, names.GENERATE_DAILY_REPORT, payload)


def request_due(session: Session, at: datetime, zone: ZoneInfo, hour: int) -> list[date]:
    """Have the reports made of the days that are over and have none; which."""
    newest = session.scalar(select(func.max(DailyReport.day)).where(DailyReport.zone == zone.key))
    found = days.due(at, zone, hour, date.fromisoformat(newest) if newest else None)
    for day in found:
        request(session, day, zone.key)
    return found


def by_mail(figures: DayFigures, csv_key: str) -> Mapping[str, object]:
    """What the template `daily_report` wants: money in minor units, bars in percent of the longest."""
    main = max(figures.totals, key=lambda total: total.orders, default=None)
    revenues = [hour.revenue_minor.get(main.currency, 0) if main else 0 for hour in figures.hours]
    most = max(revenues, default=0)
    bars = [
        {"label": hour.label, "revenue_minor": revenue, "orders": hour.orders, "percent": _percent(revenue, most)}
        for hour, revenue in zip(figures.hours, revenues, strict=True)
    ]
    sold = [number for number, revenue in enumerate(revenues) if revenue]
    products = []
    for product in figures.top_products:
        best = max(one.revenue_minor for one in figures.top_products if one.currency == product.currency)
        products.append(product.model_dump() | {"percent": _percent(product.revenue_minor, best)})
    return {
        "day": figures.day,
        "zone": figures.zone,
        "seller": figures.seller_id,
        "orders": figures.orders,
        "currency": main.currency if main else None,
        "sales": [_sale(total) for total in figures.totals],
        "viewers": figures.viewers,
        "watch_hours": round(figures.watch_seconds / 3600, 1),
        "stream_count": figures.streams,
        "failed_payments": figures.failed_payments,
        "hours": bars[sold[0] : sold[-1] + 1] if sold else [],
        "top_products": products,
        "streams": [stream.model_dump() for stream in figures.top_streams],
        "csv_key": csv_key,
    }


def _sale(total: CurrencyTotal) -> dict[str, object]:
    return total.model_dump() | {"amount_minor": total.revenue_minor, "net_minor": total.net_minor}


def _percent(value: int, most: int) -> int:
    """A bar that is not empty can be seen."""
    return max(1, round(100 * value / most)) if most and value > 0 else 0
