"""Orders and their stock."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from control.bus import names
from control.bus.task import task
from control.bus.work import Work
from control.ledger import idempotency, order_upkeep, reservations, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger, open_ledger
from control.settings import current


def _ledger() -> Ledger:
    return open_ledger(current().ledger.url)


@task(names.PROCESS_ORDER)
def process_order(order_id: str) -> None:
    """Keep the stock of an order until it is paid."""
    ledger, seconds = _ledger(), current().shop.reservation_seconds
    try:
        tasks.once(ledger, lambda session: reservations.reserve(session, order_id, seconds))
    except reservations.StockShort:
        tasks.once(ledger, lambda session: reservations.sold_out(session, order_id))


@task(names.UPDATE_INVENTORY)
def update_inventory(order_id: str) -> None:
    """Turn what was kept for an order into a sale, or give it back, as the order's state has it."""
    tasks.once(_ledger(), lambda session: order_upkeep.settle_again(session, order_id))


@task(names.CHECK_ABANDONED_CARTS)
def check_abandoned_carts(work: Work) -> None:
    """End reservations whose time is over, so many a transaction, and remind their buyers; and forget old
    Idempotency-Keys."""
    ledger = _ledger()
    while True:
        work.check()
        with ledger.write() as session:
            if not reservations.expire(session):
                break
    before = now() - timedelta(hours=current().shop.idempotency_hours)

    def effect(session: Session) -> None:
        idempotency.forget(session, before)

    tasks.once(ledger, effect)
