"""One stream's figures, from its events in the ledger: read in order and never held as a whole, so a million of them
take no more memory than their sessions' begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import Select, distinct, func, select
from sqlalchemy.orm import Session as Transaction

from control.ledger import analytics
from control.ledger.analytics_models import Sale, SaleRefund, ViewEvent
from control.ledger.engine import Ledger
from control.ledger.figures import Minute, Moment, Peak, StreamFigures, Viewing
from control.ledger.models import Stream
from control.ledger.order_models import Order
from notify_worker.analytics.sessions import MINUTE, SECOND, Audience, Seen, microseconds, moment, sessions
from notify_worker.analytics.takings import Sold, Takings

_AT_A_TIME: Final = 5000


def aggregate(
    ledger: Ledger, stream_id: str, *, grace_seconds: int, check: Callable[[], None] = lambda: None
) -> tuple[int, StreamFigures | None] | None:
    """What the stream's events come to (None where nobody knows the stream), and which changes that saw; None where
    there is nothing to count. `check` is called in between, and may raise."""
    with ledger.read() as session:
        row = analytics.get(session, stream_id)
        if row is None:
            return None
        stream = session.get(Stream, stream_id)
        if stream is None:
            return row.changes, None
        takings = _takings(session, stream, check)
        if row.sealed_at is not None:
            # The events are gone; who watched is as it was counted when they were there.
            before = StreamFigures.model_validate(row.data) if row.data else None
            viewing = Viewing.model_validate(before.model_dump()) if before else Viewing()
            watching = {minute.minute: minute.viewers for minute in before.minutes} if before else {}
        else:
            viewing, watching = _viewing(session, stream, grace_seconds, check)
        buyers = _buyers(session, stream_id)
    return row.changes, _figures(stream, viewing, watching, takings, buyers)


def seen(query: Select[str, datetime, str], session: Transaction, check: Callable[[], None]) -> Iterator[Seen]:
    """The events `query` selects, in the order that sessions are made from."""
    ordered = query.order_by(ViewEvent.viewer_id, ViewEvent.at, ViewEvent.kind.desc())
    for rows in session.execute(ordered, execution_options={"yield_per": _AT_A_TIME}).partitions():
        check()
        for viewer_id, at, kind in rows:
            yield Seen(viewer_id, microseconds(at), kind)


def _viewing(
    session: Transaction, stream: Stream, grace_seconds: int, check: Callable[[], None]
) -> tuple[Viewing, dict[int, int]]:
    mine = ViewEvent.stream_id == stream.id
    events = session.scalar(select(func.count()).select_from(ViewEvent).where(mine)) or 0
    people = select(func.count(distinct(ViewEvent.viewer_id))).where(mine)
    viewers = session.scalar(people.where(ViewEvent.at < stream.ended_at) if stream.ended_at else people) or 0
    audience = Audience(*_timeline(stream))
    query = select(ViewEvent.viewer_id, ViewEvent.at, ViewEvent.kind).where(mine)
    for one in sessions(seen(query, session, check), grace_seconds * SECOND):
        audience.add(one)
    peak = audience.peak()
    most = Peak(viewers=peak[0], minute=(peak[1] - audience.begin) // MINUTE, at=moment(peak[1])) if peak else None
    viewing = Viewing(events=events, viewers=viewers, watch_seconds=audience.watched / SECOND, peak=most)
    return viewing, audience.minutes()


def _takings(session: Transaction, stream: Stream, check: Callable[[], None]) -> Takings:
    takings = Takings(*_timeline(stream))
    query = select(Sale.at, Sale.currency, Sale.amount_minor, Sale.items, SaleRefund.order_id.is_not(None))
    query = query.outerjoin(SaleRefund, SaleRefund.order_id == Sale.order_id).where(Sale.stream_id == stream.id)
    ordered = query.order_by(Sale.at, Sale.order_id)
    for rows in session.execute(ordered, execution_options={"yield_per": _AT_A_TIME}).partitions():
        check()
        for at, currency, amount_minor, items, refunded in rows:
            takings.add(Sold(microseconds(at), currency, amount_minor, items, bool(refunded)))
    return takings


def _buyers(session: Transaction, stream_id: str) -> int:
    """Different people; an order nobody knows more of is somebody's own."""
    buyer = func.coalesce(Order.buyer_id, Sale.order_id)
    query = select(func.count(distinct(buyer))).outerjoin_from(Sale, Order, Order.id == Sale.order_id)
    return session.scalar(query.where(Sale.stream_id == stream_id)) or 0


def _timeline(stream: Stream) -> tuple[int, int | None]:
    return microseconds(stream.created_at), microseconds(stream.ended_at) if stream.ended_at else None


def _figures(
    stream: Stream, viewing: Viewing, watching: dict[int, int], takings: Takings, buyers: int
) -> StreamFigures:
    minutes = []
    for number in sorted(watching.keys() | takings.minutes.keys()):
        orders, revenue = takings.minutes.get(number, (0, {}))
        viewers = watching.get(number, 0)
        minutes.append(
            Minute(minute=number, viewers=viewers, orders=orders, revenue_minor=dict(sorted(revenue.items())))
        )
    best = [
        Moment(
            currency=currency,
            offset_seconds=(found.at - takings.begin) / SECOND,
            at=moment(found.at),
            orders=found.orders,
            revenue_minor=found.revenue_minor,
        )
        for currency, found in takings.best().items()
    ]
    return StreamFigures(
        **viewing.model_dump(),
        begin=stream.created_at,
        end=stream.ended_at,
        orders=takings.orders,
        buyers=buyers,
        conversion=round(buyers / viewing.viewers, 4) if viewing.viewers else None,
        totals=[takings.totals[currency] for currency in sorted(takings.totals)],
        best_moments=best,
        minutes=minutes,
    )


def count(ledger: Ledger, stream_id: str, *, grace_seconds: int, check: Callable[[], None] = lambda: None) -> None:
    """Count the stream and keep what came of it, unless somebody who saw more was quicker."""
    with ledger.write() as session:
        analytics.begin(session, stream_id)
    found = aggregate(ledger, stream_id, grace_seconds=grace_seconds, check=check)
    if found is not None:
        changes, figures = found
        with ledger.write() as session:
            analytics.counted(session, stream_id, changes, figures.model_dump(mode="json") if figures else None)
