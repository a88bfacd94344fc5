"""A shop for tests: products, orders, and what their tasks do, called as the workers do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.context import Delivery, working_on
from control.bus.names import TaskSpec
from control.ledger import order_placing, order_upkeep, orders, products, reservations, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.order_models import Order, OrderLine, Product
from control.ledger.order_placing import Placement, Wanted
from pipelines import checkout

T = TypeVar("T")
_numbers = itertools.count()


class Shop:
    """Everything in one place, on one ledger."""

    def __init__(self, ledger: Ledger, reservation_seconds: float = 900) -> None:
        self.ledger = ledger
        self.reservation_seconds = reservation_seconds

    def write(self, act: Callable[[Session], T]) -> T:
        with self.ledger.write() as session:
            return act(session)

    def product(self, stock: int = 10, **more: Any) -> str:
        columns = {"seller_id": "seller", "name": "Bowl", "price_minor": 100_00, "currency": "TWD", **more}
        return self.write(lambda session: products.create(session, stock=stock, **columns).id)

    def place(self, *wanted: tuple[str, int], **more: Any) -> str:
        lines = tuple(Wanted(product_id, quantity) for product_id, quantity in wanted)
        placement = Placement(**{"buyer_id": "buyer", "lines": lines, **more})
        answer = self.write(lambda session: order_placing.place(session, placement))
        return str(json.loads(answer.body)["id"])

    def process(self, order_id: str) -> None:
        try:
            self.write(lambda session: reservations.reserve(session, order_id, self.reservation_seconds))
        except reservations.StockShort:
            self.write(lambda session: reservations.sold_out(session, order_id))

    def reserved(self, *wanted: tuple[str, int], **more: Any) -> str:
        order_id = self.place(*wanted, **more)
        self.process(order_id)
        return order_id

    def pay(self, order_id: str, at: datetime | None = None) -> str:
        return self.write(lambda session: orders.pay(session, orders.get(session, order_id, lock=True), at=at or now()))

    def refund(self, order_id: str) -> None:
        self.write(lambda session: orders.refunded(session, orders.get(session, order_id, lock=True), at=now()))

    def cancel(self, order_id: str) -> None:
        self.write(lambda session: orders.cancel(session, order_id))

    def expire(self, seconds: float = 10_000) -> int:
        return self.write(lambda session: reservations.expire(session, now() + timedelta(seconds=seconds), limit=1000))

    def advance(self, order_id: str, fact: str = "order.paid") -> None:
        self.write(lambda session: checkout.advance(session, order_id, fact))

    def settle(self, order_id: str) -> None:
        self.write(lambda session: order_upkeep.settle_again(session, order_id))

    def order(self, order_id: str) -> Order:
        with self.ledger.read() as session:
            return orders.get(session, order_id)

    def lines(self, order_id: str) -> list[OrderLine]:
        with self.ledger.read() as session:
            return list(orders.lines(session, order_id))

    def history(self, order_id: str) -> list[str]:
        with self.ledger.read() as session:
            return [change.state for change in orders.history(session, order_id)]

    def figures(self, product_id: str) -> tuple[int, int, int]:
        """What is free, reserved and sold of it."""
        with self.ledger.read() as session:
            found = session.get_one(Product, product_id)
            return found.stock, found.reserved, found.sold

    def sent(self, spec: TaskSpec | None = None) -> list[dict[str, Any]]:
        """Payloads in the outbox."""
        with self.ledger.read() as session:
            rows = session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
        return [row.payload for row in rows if spec is None or row.task == spec.name]

    def deliver(self, spec: TaskSpec, effect: Callable[[Session], None], task_id: str = "") -> bool:
        """The effect as a task's, by the id of its message."""
        with working_on(Delivery(task_id or f"task-{next(_numbers)}", spec.name, spec.queue, None, attempt=1)):
            return tasks.once(self.ledger, effect)

    def work_off(self) -> int:
        """Do what the outbox has of orders' own tasks, until there is no more; how many."""
        done = 0
        while True:
            with self.ledger.write() as session:
                query = select(OutboxRow).where(OutboxRow.task.in_(_TASKS)).order_by(OutboxRow.id)
                mine = list(session.scalars(query))
                for row in mine:
                    session.delete(row)
            if not mine:
                return done
            for row in mine:
                _TASKS[row.task](self, **row.payload)
                done += 1


_TASKS: dict[str, Callable[..., Any]] = {
    names.PROCESS_ORDER.name: Shop.process,
    names.UPDATE_INVENTORY.name: Shop.settle,
    names.ADVANCE_ORDER.name: Shop.advance,
}


def waiting(session: Session) -> list[str]:
    """Orders that wait for the bus."""
    return list(session.scalars(select(Order.id).where(Order.waits_since.is_not(None))))
