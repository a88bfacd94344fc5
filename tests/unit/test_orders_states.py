"""Whatever happens to orders, in whatever order, twice or late: only legal states, and stock that adds up."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from sqlalchemy import event, func, select

from control.errors import Conflict
from control.ledger import inventory, order_upkeep, orders, products
from control.ledger.analytics_models import Sale
from control.ledger.engine import Ledger
from control.ledger.notice_models import Notice
from control.ledger.order_models import Order, OrderChange, OrderLine, Product
from tests.shop import Shop

_OVER: Final = ("sold_out", "refunded", "confirmed", "cancelled", "expired")
_home = Path(tempfile.mkdtemp(prefix="afterlive-orders-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)  # where the module is only looked at, too
_ledger = Ledger(f"sqlite:///{_home / 'ledger.sqlite'}")


@event.listens_for(_ledger._engine, "connect")
def _in_haste(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def setup_module() -> None:
    _ledger.create()


def teardown_module() -> None:
    _ledger.close()


class Orders(RuleBasedStateMachine):
    """Each rule is one message or one request; messages may come any number of times, at any time."""

    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(_ledger)
        self.paid: dict[str, int] = {}
        """How often money was taken for an order and was not to go back."""
        self.mine: set[str] = set()
        self.stocked: dict[str, int] = {}

    @initialize(stocks=st.lists(st.integers(0, 4), min_size=2, max_size=3))
    def stock_up(self, stocks: list[int]) -> None:
        self.stocked = {self.shop.product(stock=stock): stock for stock in stocks}

    @rule(
        target=placed,
        wanted=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=3),
        reachable=st.booleans(),
    )
    def place(self, wanted: list[tuple[int, int]], reachable: bool) -> str:
        known = list(self.stocked)
        lines = {known[number % len(known)]: quantity for number, quantity in wanted}
        contact = {"buyer_email": "ann@example.com", "buyer_phone": "+886912345678"} if reachable else {}
        order_id = self.shop.place(*lines.items(), **contact)
        self.mine.add(order_id)
        return order_id

    @rule(order_id=placed)
    def process(self, order_id: str) -> None:
        self.shop.process(order_id)

    @rule(order_id=placed)
    def pay(self, order_id: str) -> None:
        before = self.shop.order(order_id).state
        outcome = self.shop.pay(order_id)
        if before in ("paid", "confirmed", "refunded"):
            assert outcome == "already"
        elif before == "reserved":
            assert outcome == "paid"
        elif before in ("placed", "sold_out"):
            assert outcome == "too_late"
        self.paid[order_id] = self.paid.get(order_id, 0) + (outcome == "paid")

    @rule(order_id=placed)
    def cancel(self, order_id: str) -> None:
        before = self.shop.order(order_id).state
        try:
            self.shop.cancel(order_id)
            assert before in ("placed", "reserved", "cancelled")
        except Conflict:
            assert before not in ("placed", "reserved", "cancelled")

    @rule(order_id=placed)
    def refund(self, order_id: str) -> None:
        before = self.shop.order(order_id).state
        self.shop.refund(order_id)
        assert self.shop.order(order_id).state == ("refunded" if before in ("paid", "confirmed") else before)

    @rule(order_id=placed, fact=st.sampled_from(sorted(orders.FACTS.values())))
    def advance(self, order_id: str, fact: str) -> None:
        before = self.shop.order(order_id).state
        self.shop.advance(order_id, fact)
        confirmed = before == "paid" and fact == "order.paid"
        assert self.shop.order(order_id).state == ("confirmed" if confirmed else before)

    @rule(order_id=placed)
    def update_inventory(self, order_id: str) -> None:
        self.shop.settle(order_id)

    @rule()
    def reservations_end(self) -> None:
        self.shop.expire()

    @rule(number=st.integers(0, 2), delta=st.integers(-3, 3))
    def change_stock(self, number: int, delta: int) -> None:
        product_id = list(self.stocked)[number % len(self.stocked)]
        free = self.shop.figures(product_id)[0]
        try:
            self.shop.write(lambda session: products.change(session, product_id, stock_delta=delta))
            self.stocked[product_id] += delta
        except Conflict:
            assert free + delta < 0

    @rule(order_id=consumes(placed))
    def bus_works_all_off(self, order_id: str) -> None:
        """What was sent is enough to bring every order to where nothing is left to do."""
        self.shop.work_off()
        with _ledger.read() as session:
            order = orders.get(session, order_id)
            lines = orders.lines(session, order_id)
        assert order.state in ("reserved", *_OVER)
        assert order.waits_since is None
        assert {line.holds for line in lines} == {inventory.HOLDS.get(order.state, "nothing")}

    @invariant()
    def stock_adds_up(self) -> None:
        with _ledger.read() as session:
            for product_id, stocked in self.stocked.items():
                product = session.get_one(Product, product_id)
                assert min(product.stock, product.reserved, product.sold) >= 0
                assert product.stock + product.reserved + product.sold == stocked
                held = dict(
                    session.execute(
                        select(OrderLine.holds, func.sum(OrderLine.quantity))
                        .where(OrderLine.product_id == product_id)
                        .group_by(OrderLine.holds)
                    ).all()
                )
                assert (held.get("reserved", 0), held.get("sold", 0)) == (product.reserved, product.sold)

    @invariant()
    def histories_are_legal(self) -> None:
        with _ledger.read() as session:
            states = dict(session.execute(select(Order.id, Order.state).where(Order.id.in_(self.mine))).all())
            changes = session.scalars(
                select(OrderChange).where(OrderChange.order_id.in_(self.mine)).order_by(OrderChange.id)
            ).all()
            sales = set(session.scalars(select(Sale.order_id).where(Sale.order_id.in_(self.mine))))
            mails = session.execute(
                select(Notice.about, Notice.template, func.count())
                .where(Notice.about.in_(self.mine), Notice.template != "order_status")
                .group_by(Notice.about, Notice.template)
            ).all()
        at: dict[str, str | None] = dict.fromkeys(self.mine)
        seen: dict[str, list[str]] = {order_id: [] for order_id in self.mine}
        for change in changes:
            assert change.state_before == at[change.order_id]
            if change.state_before is not None:
                assert change.state in orders.LEGAL[change.state_before]
            at[change.order_id] = change.state
            seen[change.order_id].append(change.state)
        assert at == states
        for order_id, passed in seen.items():
            assert passed.count("paid") == self.paid.get(order_id, 0) <= 1
            assert passed.count("confirmed") <= 1
            assert ("confirmed" in passed) == (order_id in sales)
        assert all(count == 1 for _, _, count in mails)

    def teardown(self) -> None:
        """Whatever was left, and whatever was lost: the ledger knows what is to be done."""
        with _ledger.write() as session:
            order_upkeep.send_lost(session, bus_is_empty=True)
        self.shop.work_off()
        self.stock_adds_up()
        with _ledger.read() as session:
            waiting = session.scalars(select(Order.id).where(Order.waits_since.is_not(None))).all()
        assert waiting == []


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=15, stateful_step_count=25, suppress_health_check=list(HealthCheck))
