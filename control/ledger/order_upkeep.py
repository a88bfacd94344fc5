"""What the ledger says of orders is unfinished, and whose message may be lost, is sent again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import inventory, orders, outbox, reservations
from control.ledger.base import now
from control.ledger.order_models import Order, OrderLine

# A flash sale may have more on the bus than workers do in a minute; what is sent twice is done once, but costs.
_LOST_AFTER: Final = timedelta(minutes=5)
_SETTLED: Final = frozenset({"confirmed", "cancelled", "expired", "refunded"})


def settle(session: Session, order: Order, lines: Sequence[OrderLine]) -> None:
    """Bring the stock an order, locked by the caller, holds in line with its state."""
    if order.state in _SETTLED:
        order.waits_since = None
    inventory.settle(session, order, lines)


def settle_again(session: Session, order_id: str) -> None:
    """As `settle`, of an order as it is now."""
    order = orders.get(session, order_id, lock=True)
    settle(session, order, orders.lines(session, order_id))


def send_lost(session: Session, *, bus_is_empty: bool = False, limit: int = 500) -> int:
    """Send again what brings orders forward that wait for too long; how many. `bus_is_empty`: all that wait."""
    at = now()
    before = at if bus_is_empty else at - _LOST_AFTER
    query = select(Order).where(Order.waits_since <= before).order_by(Order.waits_since).limit(limit)
    found = session.scalars(query.with_for_update(skip_locked=True, key_share=True)).all()
    for order in found:
        order.waits_since = at
        orders.send_next(session, order)
    if reservations.any_due(session, before):
        outbox.add(session, names.CHECK_ABANDONED_CARTS, {})
    return len(found)
