"""Orders that wait to be paid, and the payment tasks done as a worker does them, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import pipelines.checkout  # noqa: F401  (as workers do: it knows what follows from a payment)
from control.bus import names
from control.bus.context import Delivery, working_on
from control.bus.work import Work
from control.gateways.base import Checkout
from control.gateways.ecpay.client import Ecpay
from control.ledger import inventory, orders, payment_notices, payments
from control.ledger.base import new_id, now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.order_models import Order, OrderLine, Product
from control.ledger.payment_models import Payment
from notify_worker.tasks import payment as tasks
from tests.ecpay import FakeEcpay, body, notice, payment_settings

PAID_ONCE: Final = ["reserved", "paid", "confirmed"]
"""What became of an order that was reserved, and paid."""
ECPAY: Final = Ecpay(payment_settings())
"""Of which nothing is asked over the network."""
FAILED: Final = {"RtnCode": "10100248"}
"""What a notice of a failure says."""
_BODIES: Final[dict[str, Callable[..., None]]] = {
    names.PROCESS_PAYMENT_WEBHOOK.name: tasks.process_payment_webhook.body,
    names.RETRY_FAILED_PAYMENT.name: tasks.retry_failed_payment.body,
    names.REFUND_PAYMENT.name: tasks.refund_payment.body,
}


def product(session: Session, stock: int = 10) -> str:
    at = now()
    made = Product(
        id=new_id("prd"), seller_id="seller-1", name="杯子", price_minor=129900, currency="TWD", stock=stock,
        reserved=0, sold=0, active=True, created_at=at, updated_at=at,
    )  # fmt: skip
    session.add(made)
    session.flush()
    return made.id


def reserved(session: Session, product_id: str | None = None, **changes: Any) -> Order:
    """An order of NT$ 1,299 whose stock is kept for it."""
    at = now()
    facts: dict[str, Any] = {
        "id": new_id("ord"), "buyer_id": "buyer-1", "locale": "zh-TW", "seller_id": "seller-1", "state": "placed",
        "total_minor": 129900, "currency": "TWD", "created_at": at, "updated_at": at,
        "expires_at": at + timedelta(minutes=15),
    }  # fmt: skip
    order = Order(**(facts | changes))
    session.add(order)
    session.flush()
    line = OrderLine(
        order_id=order.id, number=1, product_id=product_id or product(session), name="杯子", quantity=1,
        unit_price_minor=129900, holds="nothing",
    )  # fmt: skip
    session.add(line)
    session.flush()
    assert inventory.take(session, [line])
    orders.move(session, order, "reserved", at)
    session.flush()
    return order


def over(session: Session, order_id: str, state: str = "expired") -> None:
    """The order expires, or is cancelled, and its stock is free again."""
    order = orders.get(session, order_id, lock=True)
    orders.move(session, order, state, now())
    inventory.settle(session, order, orders.lines(session, order_id))


def opened(ledger: Ledger, order_id: str | None = None, *, renew: bool = False, **changes: Any) -> Payment:
    """A payment whose buyer is at the gateway."""
    with ledger.write() as session:
        if order_id is None:
            order_id = reserved(session, **changes).id
        return payments.open_for(session, orders.get(session, order_id, lock=True), ECPAY, renew=renew)


def told(ledger: Ledger, *notices: dict[str, str]) -> list[bool]:
    """Notices come in, as a group; which of them were new."""
    received = [("ecpay", ECPAY.receive(body(one))) for one in notices]
    with ledger.write() as session:
        return payment_notices.keep(session, received)


def notice_of(payment: Payment, **changes: str) -> dict[str, str]:
    return notice(payment.trade_no, **({"CustomField1": payment.id} | changes))


def waiting(ledger: Ledger, *specs: names.TaskSpec) -> list[OutboxRow]:
    """What the outbox has of these tasks, or of any."""
    with ledger.read() as session:
        rows = session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
    return [row for row in rows if not specs or row.task in {spec.name for spec in specs}]


def work_off(ledger: Ledger) -> None:
    """Do the payment tasks that wait, whenever they are due, until there are none."""
    while rows := [row for row in waiting(ledger) if row.task in _BODIES]:
        for row in rows:
            with ledger.write() as session:
                session.execute(delete(OutboxRow).where(OutboxRow.id == row.id))
            do(row)


def do(row: OutboxRow) -> None:
    """One task, as a worker does it."""
    spec = names.CATALOGUE[row.task]
    key = names.business_key(spec, row.payload)
    with working_on(Delivery(str(row.task_id), spec.name, spec.queue, key, 1)):
        _BODIES[row.task](**row.payload)


def reconcile() -> None:
    tasks.reconcile_payments.body(Work("reconcile", 60))


def now_is(ledger: Ledger, payment_id: str) -> Payment:
    with ledger.read() as session:
        return payments.get(session, payment_id)


def order_of(ledger: Ledger, payment: Payment) -> Order:
    with ledger.read() as session:
        return orders.get(session, payment.order_id)


def history(ledger: Ledger, payment: Payment) -> list[str]:
    """The states the payment's order came into."""
    with ledger.read() as session:
        return [change.state for change in orders.history(session, payment.order_id)]


def outcomes(ledger: Ledger, payment: Payment) -> list[str | None]:
    """What came of each notice of a payment, in the order they came."""
    with ledger.read() as session:
        return [one.outcome for one in payment_notices.of_trade(session, payment.trade_no)]


def at_gateway(fake: FakeEcpay, ledger: Ledger, payment: Payment) -> None:
    """The buyer's browser sent the form."""
    order = order_of(ledger, payment)
    form = ECPAY.checkout(
        Checkout(
            payment.id,
            payment.trade_no,
            order.id,
            payment.amount_minor,
            "TWD",
            ("a",),
            "en",
            payment.created_at,
            "http://127.0.0.1:9/",
        )
    )
    assert fake.submit(form).status_code == 200


def paid(fake: FakeEcpay, ledger: Ledger, **changes: Any) -> Payment:
    """One that was paid, at the gateway too."""
    payment = opened(ledger, **changes)
    at_gateway(fake, ledger, payment)
    fake.pay(payment.trade_no)
    told(ledger, notice_of(payment, TradeNo=fake.trade(payment.trade_no)["TradeNo"]))
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"
    return payment


def aged(ledger: Ledger, payment: Payment, seconds: float) -> None:
    """As if it had waited so long."""
    before = now() - timedelta(seconds=seconds)
    with ledger.write() as session:
        values = {"waits_from": before, "created_at": before, "updated_at": before}
        session.execute(update(Payment).where(Payment.id == payment.id).values(values))
