"""Orders: their states, and who may bring them from one to the next.

Every change is made by whoever has the order's row locked, so the changes of one order come one after the other, and
orders do not wait for each other. Locks are taken in one order: the order, its payments, products by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Table, bindparam, insert, select
from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.errors import Conflict, NotFound
from control.ledger import consequences, inventory, late, outbox
from control.ledger.base import now
from control.ledger.order_models import Order, OrderChange, OrderLine

LEGAL: Final[Mapping[str, frozenset[str]]] = {
    "placed": frozenset({"reserved", "sold_out", "cancelled"}),
    "reserved": frozenset({"paid", "cancelled", "expired"}),
    "paid": frozenset({"confirmed", "refunded"}),
    "confirmed": frozenset({"refunded"}),
    # Money that was on its way, as long as there is stock: `pay`.
    "cancelled": frozenset({"paid"}),
    "expired": frozenset({"paid"}),
    "sold_out": frozenset(),
    "refunded": frozenset(),
}
"""State → the states that may follow."""
FACTS: Final[Mapping[str, str]] = {
    "paid": "order.paid",
    "cancelled": "order.cancelled",
    "expired": "order.expired",
    "refunded": "order.refunded",
}
"""State → the fact that others act upon (pipelines.checkout)."""
_WAITING: Final = frozenset({"placed", "confirmed", *FACTS})
CHANGES: Final = insert(cast(Table, OrderChange.__table__))
# Built once: that costs as much as to execute them.
_ORDER: Final = select(Order).where(Order.id == bindparam("order_id"))
_LOCKED: Final = _ORDER.with_for_update(key_share=True)
_LINES: Final = select(OrderLine).where(OrderLine.order_id == bindparam("order_id")).order_by(OrderLine.number)
_FRESH: Final = {"populate_existing": True}
PAID_TOO_LATE: Final = "paid-too-late"


def get(session: Session, order_id: str, *, lock: bool = False) -> Order:
    """The order as it is now; with `lock`, for this transaction alone to decide on. Raises NotFound."""
    found = session.scalar(_LOCKED if lock else _ORDER, {"order_id": order_id}, execution_options=_FRESH)
    if found is None:
        raise NotFound(noun="order", key=order_id)
    return found


def lines(session: Session, order_id: str) -> Sequence[OrderLine]:
    """As the buyer has them."""
    return session.scalars(_LINES, {"order_id": order_id}, execution_options=_FRESH).all()


def history(session: Session, order_id: str) -> Sequence[OrderChange]:
    """The states it came into, in order."""
    return session.scalars(select(OrderChange).where(OrderChange.order_id == order_id).order_by(OrderChange.id)).all()


def page(session: Session, *, limit: int, after: str | None = None, **where: str | None) -> Sequence[Order]:
    """Newest first, those older than the order `after`; `where`: buyer_id, seller_id, state."""
    query = select(Order).order_by(Order.id.desc()).limit(limit)
    if after:
        query = query.where(Order.id < after)
    for column, value in where.items():
        if value is not None:
            query = query.where(getattr(Order, column) == value)
    return session.scalars(query).all()


def move(session: Session, order: Order, state: str, at: datetime, note: str | None = None) -> None:
    """The order, locked by the caller, comes into `state`, and what follows from it is sent for. Raises Conflict where
    that state may not follow."""
    before = order.state
    if state not in LEGAL[before]:
        raise Conflict(reason=f"The order {order.id} is {before}: it cannot become {state}.")
    order.state, order.updated_at = state, at
    # What follows may be lost on its way: it is sent again until it was done (`control.ledger.order_upkeep`).
    order.waits_since = at if state in _WAITING else None
    change = {"order_id": order.id, "state_before": before, "state": state, "at": at, "note": note}
    late.insert(session, CHANGES, change)
    telemetry.ORDERS.labels(state).inc()
    if state in FACTS:
        send_next(session, order)


def send_next(session: Session, order: Order) -> None:
    """Have the task sent that brings it forward from the state it is in, where there is one and this transaction does
    not do so itself."""
    about: dict[str, Any] = {"order_id": order.id}
    if order.state == "placed":
        outbox.add(session, names.PROCESS_ORDER, about)
    elif order.state == "confirmed":
        outbox.add(session, names.UPDATE_INVENTORY, about)
    elif (fact := FACTS.get(order.state)) and not consequences.hold(session, fact, order):
        outbox.add(session, names.ADVANCE_ORDER, about | {"fact": fact})


def cancel(session: Session, order_id: str, *, at: datetime | None = None, note: str | None = None) -> Order:
    """The buyer does not want it. Cancelling twice is the same as once. Raises NotFound; Conflict where it is paid, or
    over."""
    order = get(session, order_id, lock=True)
    if order.state != "cancelled":
        move(session, order, "cancelled", at or now(), note)
    return order


def pay(session: Session, order: Order, *, at: datetime) -> str:
    """The money for the order, locked by the caller, was taken at `at`:

    paid: it pays the order, if need be (it had expired, or was cancelled) with stock that is taken anew;
    already: it was paid before;
    too_late: its stock is sold to others. The money has to go back.
    """
    if order.state in ("paid", "confirmed", "refunded"):
        return "already"
    # One that is reserved has what it needs.
    has = order.state == "reserved" or (
        "paid" in LEGAL[order.state] and inventory.take(session, lines(session, order.id))
    )
    if not has:
        order.problem = PAID_TOO_LATE
        return "too_late"
    order.paid_at, order.problem = at, None
    note = "paid late" if order.state != "reserved" else None
    move(session, order, "paid", now(), note)
    return "paid"


def refunded(session: Session, order: Order, *, at: datetime) -> None:
    """The money of the order, locked by the caller, went back; its stock is given back where it was taken. Of one that
    is not paid, nothing changes."""
    if "refunded" in LEGAL[order.state]:
        move(session, order, "refunded", at)
