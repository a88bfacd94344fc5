"""Orders and payments under whatever buyers, the gateway, the clock and liars may do, in any order.

What is held to: an order is paid by one payment at most; no lie and no trial pays; money that was taken pays an order
or goes back, once; and no payment goes a way that is not its own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import delete, select, update

from control.bus import names
from control.errors import Conflict
from control.gateways import read_notice
from control.gateways.ecpay.notice import answer
from control.ledger import orders, payment_notices, payment_refunds, payment_reports, payments
from control.ledger.base import Base
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.order_models import Order, Product
from control.ledger.payment_models import Payment
from tests.ecpay import body, notice
from tests.paying import ECPAY, opened, over, product, reserved, told

MAY_BECOME: Final = {
    "created": {"pending", "expired", "failed", "paid", "refunding", "review"},
    "pending": {"paid", "failed", "expired", "review", "refunding"},
    "failed": {"pending", "paid", "review", "refunding"},
    "expired": {"paid", "review", "refunding"},
    "review": {"paid", "refunding", "refunded"},
    "paid": {"refunding"},
    "refunding": {"refunded", "review"},
    "refunded": set[str](),
}
_WAITS: Final = ("created", "pending", "failed", "expired")


@cache
def _ledger() -> Ledger:
    """One for all examples, each of which begins with nothing: it costs more to make than an example."""
    made = Ledger("sqlite://")
    made.create()
    return made


def _emptied(ledger: Ledger) -> Ledger:
    with ledger.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    return ledger


@dataclass
class Trade:
    """How it really is, at the gateway."""

    payment: Payment
    paid: bool = False
    given_back: int = 0
    notices: list[dict[str, str]] = field(default_factory=list)

    def tells(self, **changes: str) -> None:
        about = {"CustomField1": self.payment.id, "TradeNo": f"G{self.payment.trade_no[-10:]}"}
        self.notices.append(notice(self.payment.trade_no, **(about | changes)))


class Shop(RuleBasedStateMachine):
    trades: Bundle[Trade] = Bundle("trades")

    @initialize()
    def opens(self) -> None:
        self.ledger = _emptied(_ledger())
        self.known: dict[str, Trade] = {}
        self.was: dict[str, str] = {}
        with self.ledger.write() as session:
            self.scarce = product(session, stock=2)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.comes_to_rest()

    # --- buyers and the clock ---

    @rule(target=trades)
    def buys(self) -> Trade:
        with self.ledger.write() as session:
            left = session.get_one(Product, self.scarce).stock
            order_id = reserved(session, self.scarce if left else product(session, 1)).id
        return self.at_gateway(opened(self.ledger, order_id))

    @rule(target=trades, trade=trades)
    def goes_to_pay_again(self, trade: Trade) -> Trade:
        return self.again(trade)

    def again(self, trade: Trade) -> Trade:
        try:
            return self.at_gateway(opened(self.ledger, trade.payment.order_id, renew=True))
        except Conflict:  # the order is over, or somebody has to look first
            return trade

    @rule(target=trades, trade=trades, arrive=st.booleans())
    def pays_in_two_windows(self, trade: Trade, arrive: bool) -> Trade:
        other = self.again(trade)
        for one in (other, trade):
            self.decides(one, "pays", arrive)
        return other

    def at_gateway(self, payment: Payment) -> Trade:
        return self.known.setdefault(payment.id, Trade(payment))

    @rule(trade=trades, how=st.sampled_from(["pays", "fails", "simulated"]), arrives=st.booleans())
    def decides(self, trade: Trade, how: str, arrives: bool) -> None:
        trade.paid = trade.paid or how == "pays"
        trade.tells(**{"pays": {}, "fails": {"RtnCode": "10100248"}, "simulated": {"SimulatePaid": "1"}}[how])
        if arrives:
            self.hears(trade.notices[-1])

    @rule(trade=trades, state=st.sampled_from(["expired", "cancelled"]), bought_up=st.booleans())
    def is_over(self, trade: Trade, state: str, bought_up: bool) -> None:
        with self.ledger.write() as session:
            if orders.get(session, trade.payment.order_id).state == "reserved":
                over(session, trade.payment.order_id, state)
                if bought_up:
                    session.execute(update(Product).values(stock=0))

    # --- the gateway ---

    @rule(trade=trades, changes=st.sampled_from([{"TradeAmt": "1"}, {"MerchantID": "1"}, {"CustomField1": "pay_x"}]))
    def lies(self, trade: Trade, changes: dict[str, str]) -> None:
        trade.tells(**changes)
        self.hears(trade.notices[-1])

    @rule(trade=trades, data=st.data())
    def tells(self, trade: Trade, data: st.DataObject) -> None:
        """One of all it ever had to tell, or had told already, again."""
        if trade.notices:
            self.hears(data.draw(st.sampled_from(trade.notices)))

    def hears(self, *notices: dict[str, str]) -> None:
        told(self.ledger, *notices)
        for one in notices:
            with self.ledger.write() as session:
                payment_notices.process(session, id_of(one), read_notice)

    @rule(trade=trades)
    def is_asked(self, trade: Trade) -> None:
        status = "1" if trade.paid else "10200095" if trade.notices else "0"
        said = answer({**trade_fields(trade), "TradeStatus": status})
        with self.ledger.write() as session:
            payment_reports.hear(session, said)
            if said.standing != "paid":
                payments.next_try(session, trade.payment.id, ECPAY)

    # --- refunds ---

    @rule(trade=trades)
    def is_to_be_refunded(self, trade: Trade) -> None:
        with suppress(Conflict), self.ledger.write() as session:
            payment_refunds.request(session, trade.payment.id)

    @rule(trade=trades, dies=st.booleans())
    def is_refunded(self, trade: Trade, dies: bool) -> None:
        self.gives_back(trade, dies=dies)

    def gives_back(self, trade: Trade, *, dies: bool = False) -> None:
        """The task, whose worker may die between the gateway's answer and ours."""
        with self.ledger.write() as session:
            wanted = payment_refunds.trying(session, trade.payment.id)
        if wanted is None:
            return
        if trade.given_back or not trade.paid:
            with self.ledger.write() as session:
                payment_refunds.refused(session, trade.payment.id)
            return
        trade.given_back += 1
        if not dies:
            with self.ledger.write() as session:
                payment_refunds.done(session, trade.payment.id)

    # --- what is held to ---

    @invariant()
    def it_is_kept(self) -> None:
        if not hasattr(self, "ledger"):
            return
        with self.ledger.read() as session:
            found = list(session.scalars(select(Payment)))
            all_orders = list(session.scalars(select(Order)))
            rows = session.scalars(select(OutboxRow).where(OutboxRow.task == names.REFUND_PAYMENT.name)).all()
        self.each_goes_its_way(found)
        for order in all_orders:
            an_order_is_paid_by_one(order, [payment for payment in found if payment.order_id == order.id])
        for payment in found:
            self.only_real_money_counts(payment)
        # Who waits for a refund has it sent.
        assert {one.id for one in found if one.state == "refunding"} <= {row.payload["payment_id"] for row in rows}

    def each_goes_its_way(self, found: list[Payment]) -> None:
        for payment in found:
            before = self.was.get(payment.id, "created")
            assert payment.state == before or reachable(before, payment.state), (before, payment.state)
            self.was[payment.id] = payment.state

    def only_real_money_counts(self, payment: Payment) -> None:
        trade = self.known.get(payment.id)
        if payment.state in ("paid", "refunding", "refunded"):
            assert trade is not None
            assert trade.paid
            assert payment.state != "refunded" or trade.given_back == 1

    def comes_to_rest(self) -> None:
        """Whatever was lost: the gateway is asked for each, and each refund is tried."""
        for trade in list(self.known.values()):
            self.is_asked(trade)
            self.gives_back(trade)
        with self.ledger.read() as session:
            found = list(session.scalars(select(Payment)))
        for payment in found:
            if payment.id in self.known and self.known[payment.id].paid:
                assert payment.state not in _WAITS, "money was taken, and nobody knows of it"
                assert payment.state != "refunding", "it was neither given back nor looked at"


def an_order_is_paid_by_one(order: Order, mine: list[Payment]) -> None:
    paying = [one for one in mine if one.state == "paid" or one.refund_reason == "requested"]
    assert len(paying) == (order.state in ("paid", "confirmed", "refunded")), (order.state, mine)
    assert order.state != "refunded" or paying[0].state == "refunded"


def reachable(before: str, after: str) -> bool:
    """In one step of the gateway's or two: a rule may hear several things."""
    return after in MAY_BECOME[before] or any(after in MAY_BECOME[between] for between in MAY_BECOME[before])


def id_of(fields: dict[str, str]) -> str:
    return ECPAY.receive(body(fields)).id


def trade_fields(trade: Trade) -> dict[str, Any]:
    return notice(trade.payment.trade_no, CustomField1=trade.payment.id, TradeNo=f"G{trade.payment.trade_no[-10:]}")


TestShop = Shop.TestCase
TestShop.settings = settings(max_examples=20, stateful_step_count=25, suppress_health_check=list(HealthCheck))
