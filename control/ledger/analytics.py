"""What was watched and sold: facts come in once each, whatever their order, and a stream they change is counted again.

The count of a stream is never older than `scheduled_at` for long: whoever brings something new locks the stream's row
last, so a count that begins afterwards sees it, and one that began before is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import Table, or_, select, update
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import Conflict
from control.ledger import outbox
from control.ledger.analytics_models import Sale, SaleRefund, StreamAnalytics, ViewEvent
from control.ledger.base import Base, insert_into, insert_new, now

AGGREGATE_AFTER_SECONDS: Final = 10
"""So long may pass between something new and the count of it; all that comes meanwhile is counted with it."""
_LONGEST_PAUSE_SECONDS: Final = 300
_LOST_AFTER: Final = timedelta(minutes=10)
# A count that runs takes less.
_GONE_AFTER: Final = timedelta(seconds=names.AGGREGATE_STREAM_ANALYTICS.hard_seconds)


_SALE: Final = insert_new(Sale, "order_id", "order_id")


@dataclass(frozen=True)
class View:
    """One event of one viewer."""

    id: str
    viewer_id: str
    kind: str
    at: datetime


def record_views(session: Session, stream_id: str, views: Sequence[View]) -> int:
    """How many of them are new; those that were known, by their id, stay what they were. Raises Conflict where the
    stream's events were removed."""
    rows = {view.id: view for view in reversed(views)}  # of two with one id in one batch, the first
    inserted = _insert(session, ViewEvent)
    # In one order, whoever inserts several: so none wait for each other.
    values = [{"stream_id": stream_id, **vars(rows[key])} for key in sorted(rows)]
    new = len(session.scalars(inserted.returning(ViewEvent.id), values).all()) if values else 0
    if new and not changed(session, stream_id):
        raise Conflict(reason=f"The stream {stream_id} was cleaned up: its viewers were counted for good.")
    return new


def record_sale(
    session: Session,
    *,
    order_id: str,
    stream_id: str | None,
    seller_id: str,
    amount_minor: int,
    currency: str,
    items: int,
    at: datetime,
) -> None:
    """An order was paid. Recording it again changes nothing."""
    values = {"order_id": order_id, "stream_id": stream_id, "seller_id": seller_id, "items": items, "at": at}
    values |= {"amount_minor": amount_minor, "currency": currency}
    connection = session.connection()
    if connection.scalar(_SALE[connection.dialect.name], values) is not None and stream_id:
        changed(session, stream_id)


def record_refund(session: Session, *, order_id: str, at: datetime) -> None:
    """An order's money went back. Recording it again changes nothing; it may come before the sale."""
    recorded = _insert(session, SaleRefund).values(order_id=order_id, at=at).returning(SaleRefund.order_id)
    if session.scalar(recorded) is not None:
        stream_id = session.scalar(select(Sale.stream_id).where(Sale.order_id == order_id))
        if stream_id:
            changed(session, stream_id)


def changed(session: Session, stream_id: str) -> bool:
    """Have the stream counted, where that is not on its way already; False where its events were removed (its sales
    are counted all the same). The stream's row stays locked until the transaction ends."""
    table = cast(Table, StreamAnalytics.__table__)
    first = insert_into(session, StreamAnalytics).values(stream_id=stream_id, changes=1, counted=0)
    again = {"changes": table.c.changes + 1}
    upsert = first.on_conflict_do_update(index_elements=["stream_id"], set_=again)
    seen = (table.c.scheduled_at, table.c.sealed_at, table.c.started_at, table.c.computed_at)
    row = session.execute(upsert.returning(*seen)).one()
    if row.scheduled_at is None or row.scheduled_at < now() - _LOST_AFTER:
        schedule(session, stream_id, delay_seconds=_pause(row.started_at, row.computed_at))
    return row.sealed_at is None


def _pause(started_at: datetime | None, computed_at: datetime | None) -> float:
    """A stream whose count takes long is counted less often: it keeps a worker busy a fifth of the time."""
    took = computed_at - started_at if started_at and computed_at else timedelta()
    return min(max(AGGREGATE_AFTER_SECONDS, took.total_seconds() * 4), _LONGEST_PAUSE_SECONDS)


def schedule(session: Session, stream_id: str, *, delay_seconds: float = 0) -> None:
    """Have the stream counted; it must have a row."""
    mine = update(StreamAnalytics).where(StreamAnalytics.stream_id == stream_id)
    session.execute(mine.values(scheduled_at=now()))
    outbox.add(session, names.AGGREGATE_STREAM_ANALYTICS, {"stream_id": stream_id}, delay_seconds=delay_seconds)


def stream_ended(session: Session, stream_id: str) -> None:
    """The timeline of a stream has an end now, which matters where anything happened on it."""
    if session.get(StreamAnalytics, stream_id) is not None:
        changed(session, stream_id)


def begin(session: Session, stream_id: str) -> None:
    """A count begins: what comes from now on asks for another."""
    mine = update(StreamAnalytics).where(StreamAnalytics.stream_id == stream_id)
    session.execute(mine.values(scheduled_at=None, started_at=now()))


def counted(session: Session, stream_id: str, changes: int, data: dict[str, Any] | None) -> bool:
    """What a count came to that saw `changes`; False where one that saw more was here before."""
    where = (StreamAnalytics.stream_id == stream_id) & (StreamAnalytics.counted <= changes)
    values = {"counted": changes, "data": data, "computed_at": now()}
    return bool(session.execute(update(StreamAnalytics).where(where).values(values)).rowcount == 1)  # type: ignore[attr-defined]


def get(session: Session, stream_id: str) -> StreamAnalytics | None:
    return session.get(StreamAnalytics, stream_id, populate_existing=True)


def recount_lost(session: Session, *, bus_is_empty: bool = False, limit: int = 1000) -> int:
    """Ask again for counts whose message, or whose worker, is gone; how many. `bus_is_empty`: all that were asked for
    are."""
    at = now()
    lost = or_(
        StreamAnalytics.scheduled_at < at - _LOST_AFTER,
        StreamAnalytics.scheduled_at.is_(None) & (StreamAnalytics.started_at < at - _GONE_AFTER),
    )
    behind = StreamAnalytics.counted < StreamAnalytics.changes
    query = select(StreamAnalytics.stream_id).where(behind).limit(limit)
    if not bus_is_empty:
        query = query.where(lost)
    found = session.scalars(query.with_for_update(skip_locked=True)).all()
    for stream_id in found:
        schedule(session, stream_id)
    return len(found)


def _insert(session: Session, model: type[Base]) -> Any:
    """What is there already stays."""
    return insert_into(session, model).on_conflict_do_nothing()
