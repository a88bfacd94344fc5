"""A day's figures, of each seller and of all, from what the ledger has of it now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session as Transaction

from control.ledger import days, reports
from control.ledger.analytics_models import Sale, SaleRefund, StreamAnalytics, ViewEvent
from control.ledger.figures import CurrencyTotal, DayFigures, Hour, ProductSold, StreamWatched, Viewing
from control.ledger.models import Stream
from control.ledger.order_models import Order, OrderLine
from control.ledger.payment_models import Payment
from notify_worker.analytics.aggregate import seen
from notify_worker.analytics.sessions import SECOND, Audience, microseconds, sessions

_AT_A_TIME: Final = 5000
_MOST: Final = 10
"""Products and streams that are named."""


@dataclass
class Sheets:
    """A sheet a seller and one for all, of one day."""

    day: date
    zone: ZoneInfo

    def __post_init__(self) -> None:
        self.begin, self.end = days.bounds(self.day, self.zone)
        self.labels = days.hours(self.day, self.zone)
        self.sheets: dict[str, DayFigures] = {}
        self.sheet(reports.WHOLE)

    def sheet(self, seller_id: str) -> DayFigures:
        """The seller's."""
        if seller_id not in self.sheets:
            self.sheets[seller_id] = DayFigures(
                day=self.day.isoformat(),
                zone=self.zone.key,
                seller_id=seller_id or None,
                begin=self.begin,
                end=self.end,
                hours=[Hour(label=label) for label in self.labels],
            )
        return self.sheets[seller_id]

    def of(self, seller_id: str | None) -> Iterable[DayFigures]:
        """Where what concerns a seller belongs."""
        return [self.sheet(who) for who in dict.fromkeys((seller_id or reports.WHOLE, reports.WHOLE))]


def collect(
    session: Transaction, day: date, zone: ZoneInfo, *, grace_seconds: int, check: Callable[[], None] = lambda: None
) -> dict[str, DayFigures]:
    """The figures by seller; all of them under `reports.WHOLE`. `check` is called in between, and may raise."""
    made = Sheets(day, zone)
    _sales(session, made, check)
    _refunds(session, made)
    _products(session, made)
    _failed_payments(session, made)
    _streams(session, made, grace_seconds, check)
    return made.sheets


def _sales(session: Transaction, made: Sheets, check: Callable[[], None]) -> None:
    query = select(Sale.at, Sale.seller_id, Sale.currency, Sale.amount_minor, Sale.items)
    query = query.where(Sale.at >= made.begin, Sale.at < made.end).order_by(Sale.at, Sale.order_id)
    for rows in session.execute(query, execution_options={"yield_per": _AT_A_TIME}).partitions():
        check()
        for at, seller_id, currency, amount_minor, items in rows:
            for sheet in made.of(seller_id):
                sheet.orders += 1
                total = _total(sheet, currency)
                total.orders += 1
                total.items += items
                total.revenue_minor += amount_minor
                hour = sheet.hours[days.hour_of(at, made.begin)]
                hour.orders += 1
                hour.revenue_minor[currency] = hour.revenue_minor.get(currency, 0) + amount_minor


def _total(sheet: DayFigures, currency: str) -> CurrencyTotal:
    found = next((total for total in sheet.totals if total.currency == currency), None)
    if found is None:
        found = CurrencyTotal(currency=currency)
        sheet.totals.append(found)
        sheet.totals.sort(key=lambda total: total.currency)
    return found


def _refunds(session: Transaction, made: Sheets) -> None:
    amount = func.sum(Sale.amount_minor)
    query = select(Sale.seller_id, Sale.currency, func.count(), amount).join(
        SaleRefund, SaleRefund.order_id == Sale.order_id
    )
    query = query.where(SaleRefund.at >= made.begin, SaleRefund.at < made.end).group_by(Sale.seller_id, Sale.currency)
    for seller_id, currency, refunds, refunded_minor in session.execute(query):
        for sheet in made.of(seller_id):
            total = _total(sheet, currency)
            total.refunds += refunds
            total.refunded_minor += int(refunded_minor)


def _products(session: Transaction, made: Sheets) -> None:
    revenue = func.sum(OrderLine.quantity * OrderLine.unit_price_minor)
    what = (Sale.seller_id, Sale.currency, OrderLine.product_id, OrderLine.name)
    query = select(*what, func.sum(OrderLine.quantity), revenue).join(OrderLine, OrderLine.order_id == Sale.order_id)
    query = query.where(Sale.at >= made.begin, Sale.at < made.end).group_by(*what)
    # Currencies cannot be compared: within one by revenue.
    for row in session.execute(query.order_by(revenue.desc(), *what)):
        seller_id, currency, product_id, name, quantity, revenue_minor = row
        for sheet in made.of(seller_id):
            if len(sheet.top_products) < _MOST:
                sheet.top_products.append(
                    ProductSold(
                        product_id=product_id,
                        name=name,
                        currency=currency,
                        quantity=int(quantity),
                        revenue_minor=int(revenue_minor),
                    )
                )


def _failed_payments(session: Transaction, made: Sheets) -> None:
    """Tries to pay, of the day, that came to nothing as far as is known now."""
    mine = (Payment.state == "failed") & (Payment.created_at >= made.begin) & (Payment.created_at < made.end)
    query = select(Order.seller_id, func.count()).join(Payment, Payment.order_id == Order.id).where(mine)
    for seller_id, number in session.execute(query.group_by(Order.seller_id)):
        for sheet in made.of(seller_id):
            sheet.failed_payments += number


def _streams(session: Transaction, made: Sheets, grace_seconds: int, check: Callable[[], None]) -> None:
    ran = (Stream.created_at < made.end) & (Stream.ended_at.is_(None) | (Stream.ended_at > made.begin))
    query = select(Stream, StreamAnalytics).outerjoin(StreamAnalytics, StreamAnalytics.stream_id == Stream.id)
    streams = session.execute(query.where(ran).order_by(Stream.created_at, Stream.id)).all()
    orders = _by(session, Sale.stream_id, func.count(), (Sale.at >= made.begin) & (Sale.at < made.end))
    viewers = _viewers(session, made)
    sealed: set[str] = set()
    for stream, analytics in streams:
        check()
        if analytics is not None and analytics.sealed_at is not None:
            past = Viewing.model_validate(analytics.data or {})
            watched, there = past.watch_seconds, past.viewers
            sealed |= {stream.seller_id or reports.WHOLE, reports.WHOLE}
        else:
            watched, there = _watched(session, stream, made, grace_seconds, check), viewers.get(stream.id, 0)
        line = StreamWatched(stream_id=stream.id, title=stream.title, viewers=there, orders=orders.get(stream.id, 0))
        for sheet in made.of(stream.seller_id):
            sheet.streams += 1
            sheet.watch_seconds += watched
            sheet.top_streams.append(line)
    _as_it_was(session, made, sealed)
    for sheet in made.sheets.values():
        sheet.watch_seconds = round(sheet.watch_seconds, 3)
        sheet.top_streams = sorted(sheet.top_streams, key=lambda one: (-one.viewers, one.stream_id))[:_MOST]


def _by(session: Transaction, key: Any, value: Any, where: Any) -> dict[str, int]:
    return {name: number for name, number in session.execute(select(key, value).where(where).group_by(key)) if name}


def _watched(
    session: Transaction, stream: Stream, made: Sheets, grace_seconds: int, check: Callable[[], None]
) -> float:
    """Seconds of the day. What was seen within the grace of it tells all about it."""
    grace = timedelta(seconds=grace_seconds)
    begin, end = max(made.begin, stream.created_at), min(made.end, stream.ended_at or made.end)
    audience = Audience(microseconds(begin), microseconds(end))
    query = select(ViewEvent.viewer_id, ViewEvent.at, ViewEvent.kind).where(
        ViewEvent.stream_id == stream.id, ViewEvent.at >= begin - grace, ViewEvent.at <= end + grace
    )
    for one in sessions(seen(query, session, check), grace_seconds * SECOND):
        audience.add(one)
    return audience.watched / SECOND


def _viewers(session: Transaction, made: Sheets) -> dict[str, int]:
    """Different people, by seller and of all: who watched two streams is one. The answer: by stream."""
    people = func.count(distinct(ViewEvent.viewer_id))
    inside = (ViewEvent.at >= made.begin) & (ViewEvent.at < made.end)
    inside &= Stream.ended_at.is_(None) | (ViewEvent.at < Stream.ended_at)
    of_all = select(people).select_from(ViewEvent).join(Stream, Stream.id == ViewEvent.stream_id).where(inside)
    made.sheet(reports.WHOLE).viewers = session.scalar(of_all) or 0
    found = select(Stream.seller_id, people).join(Stream, Stream.id == ViewEvent.stream_id).where(inside)
    for seller_id, viewers in session.execute(found.group_by(Stream.seller_id)):
        if seller_id:
            made.sheet(seller_id).viewers = viewers
    by_stream = select(Stream.id, people).join(Stream, Stream.id == ViewEvent.stream_id).where(inside)
    return dict(iter(session.execute(by_stream.group_by(Stream.id))))


def _as_it_was(session: Transaction, made: Sheets, sealed: set[str]) -> None:
    """Where a stream's events are gone, who watched on the day is what was reported when they were there; without a
    report, what was counted of the stream as a whole."""
    if not sealed:
        return
    before = reports.figures_of(session, made.day.isoformat(), made.zone.key)
    for seller_id in sealed:
        sheet = made.sheet(seller_id)
        if known := before.get(seller_id):
            sheet.viewers, sheet.watch_seconds = known.viewers, known.watch_seconds
            seen_then = {one.stream_id: one.viewers for one in known.top_streams}
            sheet.top_streams = [
                one.model_copy(update={"viewers": seen_then.get(one.stream_id, one.viewers)})
                for one in sheet.top_streams
            ]
        else:
            sheet.viewers = max(sheet.viewers, *(one.viewers for one in sheet.top_streams))
