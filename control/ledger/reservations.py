"""Stock that is kept for an order until it is paid, and free again once that takes too long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, exists, select
from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import inventory, notices, orders, outbox
from control.ledger.base import insert_into, now
from control.ledger.order_models import Order, OrderLine
from control.ledger.task_models import TaskRow

SOLD_OUT: Final = "sold-out"
_AT_A_TIME: Final = 100
_FINEST_SECONDS: Final = 1.0
_COARSEST_SECONDS: Final = 15.0
# What a flash sale would ask the database for with each order.
_last_look: WeakKeyDictionary[Engine | Connection, str] = WeakKeyDictionary()


class StockShort(Exception):
    """Somebody else took the last of it a moment ago: nothing of this transaction may stay."""


def reserve(session: Session, order_id: str, seconds: float) -> None:
    """Keep the stock of a placed order for so long, or note that it is sold out. Of one that is in another state
    nothing changes. Raises StockShort: then `sold_out` is what is left to do."""
    order, lines, missing = inventory.order_and_missing(session, order_id)
    if order.state != "placed":
        return
    at = now()
    if missing:
        _sold_out(session, order, at, missing)
        return
    order.expires_at = at + timedelta(seconds=seconds)
    orders.move(session, order, "reserved", at)
    _look_then(session, order.expires_at, seconds)
    if not inventory.take_or_undo(session, lines):
        raise StockShort


def sold_out(session: Session, order_id: str) -> None:
    """There was not enough for a placed order."""
    order, _, missing = inventory.order_and_missing(session, order_id)
    if order.state == "placed":
        _sold_out(session, order, now(), missing)


def expire(session: Session, at: datetime | None = None, limit: int = _AT_A_TIME) -> int:
    """End reservations whose time is over, at most `limit`, and remind their buyers once; how many. An order somebody
    works on at the moment is left for the next look."""
    at = at or now()
    query = select(Order).where(Order.state == "reserved", Order.expires_at <= at).order_by(Order.id).limit(limit)
    found = session.scalars(
        query.with_for_update(skip_locked=True, key_share=True), execution_options={"populate_existing": True}
    ).all()
    for order in found:
        orders.move(session, order, "expired", at)
        if order.reminded_at is None and order.buyer_email:
            order.reminded_at = at
            notices.request(
                session,
                names.SEND_ABANDONED_CART_EMAIL,
                key=f"abandoned-cart:{order.id}",
                to=order.buyer_email,
                template="abandoned_cart",
                locale=order.locale,
                data=for_mail(order, orders.lines(session, order.id)),
                about=order.id,
            )
    session.flush()
    return len(found)


def any_due(session: Session, at: datetime) -> bool:
    """Whether there are reservations that ended before `at`."""
    query = select(exists().where(Order.state == "reserved", Order.expires_at <= at))
    return bool(session.scalar(query))


def for_mail(order: Order, lines: Sequence[OrderLine]) -> dict[str, Any]:
    """The order as the templates of mails want it (control.ledger.notices)."""
    return {
        "order_id": order.id,
        "total_minor": order.total_minor,
        "currency": order.currency,
        "lines": [
            {"name": line.name, "quantity": line.quantity, "unit_price_minor": line.unit_price_minor} for line in lines
        ],
    }


def _sold_out(session: Session, order: Order, at: datetime, missing: list[str]) -> None:
    order.problem = SOLD_OUT
    orders.move(session, order, "sold_out", at, note=", ".join(missing)[:1000] or None)


def _look_then(session: Session, expires_at: datetime, seconds: float) -> None:
    """Have somebody look for ended reservations as soon as this one has. Those that end within the same moment are
    looked for by one task, whose id says which moment that is."""
    grain = min(max(seconds / 60, _FINEST_SECONDS), _COARSEST_SECONDS)
    moment = math.ceil(expires_at.timestamp() / grain) * grain
    spec = names.CHECK_ABANDONED_CARTS
    task_id = f"reservations-end-{moment:.3f}"
    bind = session.get_bind()
    if _last_look.get(bind) == task_id:
        return
    row = insert_into(session, TaskRow).values(
        id=task_id, task=spec.name, queue=spec.queue, key=None, state="PENDING", created_at=now()
    )
    first = row.on_conflict_do_nothing(index_elements=["id"]).returning(TaskRow.id)
    if session.scalar(first) is not None:
        delay = (datetime.fromtimestamp(moment, UTC) - now()).total_seconds()
        outbox.add(session, spec, {}, delay_seconds=max(delay, 0.0), task_id=task_id)
    else:  # somebody has sent it, and that is committed
        _last_look[bind] = task_id
