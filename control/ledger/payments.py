"""Payments: one is opened for an order that is reserved, and the gateway decides how it ends.

    created ─► pending ─► paid ─► refunding ─► refunded
                  ├─► failed, expired: a success that comes later still wins
                  └─► review: what the gateway says does not fit; a person has to look

What the gateway says is heard in `payment_reports`, refunds are in `payment_refunds`. Locks are taken order first.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.errors import Conflict, NotFound
from control.gateways.base import PaymentGateway
from control.ledger import orders, outbox
from control.ledger.base import LOCK, new_id, now
from control.ledger.order_models import Order
from control.ledger.payment_models import Payment

log = logging.getLogger("afterlive.payments")
OPEN: Final = ("created", "pending")
STATES: Final = (*OPEN, "paid", "failed", "expired", "refunding", "refunded", "review")
# Nobody waits for a buyer who lets so many fail; the buyer may still ask for another.
_MOST_TRIES: Final = 3
# PostgreSQL locks them in this order.
_LOCKED_BY_TRADE: Final = (
    select(Order, Payment)
    .join(Payment, Payment.order_id == Order.id)
    .where(Payment.trade_no == bindparam("trade_no"))
    .with_for_update(key_share=True)
)
_OF_ORDER: Final = (
    select(Payment)
    .where(Payment.order_id == bindparam("order_id"))
    .order_by(Payment.created_at.desc(), Payment.id.desc())
)
_DIGITS: Final = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def get(session: Session, payment_id: str) -> Payment:
    """Raises NotFound."""
    found = session.get(Payment, payment_id)
    if found is None:
        raise NotFound(noun="payment", key=payment_id)
    return found


def locked(session: Session, payment_id: str) -> tuple[Order, Payment]:
    """The payment and its order, for this transaction alone to decide on. Raises NotFound."""
    order_id = session.scalar(select(Payment.order_id).where(Payment.id == payment_id))
    if order_id is None:
        raise NotFound(noun="payment", key=payment_id)
    order = orders.get(session, order_id, lock=True)
    return order, session.get_one(Payment, payment_id, with_for_update=LOCK, populate_existing=True)


def locked_by_trade(session: Session, trade_no: str) -> tuple[Order, Payment] | None:
    """As `locked`, of a gateway's trade; None where there is none."""
    fresh = {"populate_existing": True}
    found = session.execute(_LOCKED_BY_TRADE, {"trade_no": trade_no}, execution_options=fresh).one_or_none()
    return found and (found[0], found[1])


def of_order(session: Session, order_id: str) -> Sequence[Payment]:
    """Newest first."""
    return session.scalars(_OF_ORDER, {"order_id": order_id}, execution_options={"populate_existing": True}).all()


def page(session: Session, *, limit: int, after: str | None = None, state: str | None = None) -> Sequence[Payment]:
    """Newest first, those older than the payment `after`."""
    query = select(Payment).order_by(Payment.created_at.desc(), Payment.id.desc()).limit(limit)
    if after:
        last = get(session, after)
        query = query.where(tuple_(Payment.created_at, Payment.id) < (last.created_at, last.id))
    if state:
        query = query.where(Payment.state == state)
    return session.scalars(query).all()


def create(session: Session, order: Order, gateway: PaymentGateway) -> Payment:
    """Another try to have the order paid, which the buyer was not sent on yet. Raises AmountInvalid."""
    gateway.check(order.total_minor, order.currency)
    at = now()
    payment = Payment(
        id=new_id("pay"),
        order_id=order.id,
        gateway=gateway.name,
        merchant_id=gateway.merchant_id,
        trade_no=_trade_no(),
        amount_minor=order.total_minor,
        currency=order.currency,
        state="created",
        simulated=False,
        refund_tries=0,
        created_at=at,
        updated_at=at,
        waits_from=at,
    )
    session.add(payment)
    telemetry.PAYMENTS.labels("created").inc()
    return payment


def open_for(session: Session, order: Order, gateway: PaymentGateway, *, renew: bool = False) -> Payment:
    """The payment the buyer is to be sent on with: the one that is open, or another where there is none (or `renew`:
    a gateway may not take the same form twice). The order is locked by the caller.

    Raises Conflict where the order does not wait to be paid, AmountInvalid.
    """
    if order.state != "reserved":
        raise Conflict(reason=f"The order {order.id} is {order.state}: only one that is reserved can be paid.")
    for payment in of_order(session, order.id):
        if payment.state == "review":
            raise Conflict(reason=f"The payment {payment.id} of this order has to be looked at first.")
        if payment.state not in OPEN:
            continue
        if not renew and (payment.gateway, payment.amount_minor) == (gateway.name, order.total_minor):
            return _sent(payment)
        move(payment, "expired")
    return _sent(create(session, order, gateway))


def next_try(session: Session, payment_id: str, gateway: PaymentGateway) -> Payment | None:
    """Have another try ready where this one failed and the order still waits. The gateway was asked before."""
    order, _ = locked(session, payment_id)
    tries = of_order(session, order.id)
    unfit = any(other.state not in ("failed", "expired") for other in tries)
    if order.state != "reserved" or unfit or len(tries) >= _MOST_TRIES:
        return None
    return create(session, order, gateway)


def recheck(session: Session, payment_id: str) -> Payment:
    """Have the gateway asked how it stands. Raises NotFound."""
    payment = get(session, payment_id)
    outbox.add(session, names.RETRY_FAILED_PAYMENT, {"payment_id": payment.id})
    return payment


def silent(session: Session, gateway: str, seconds: float, limit: int) -> Sequence[Payment]:
    """Those whose buyers were sent on, and of which nothing was heard for so long; the longest first."""
    query = select(Payment).where(
        Payment.gateway == gateway,
        Payment.state == "pending",
        Payment.waits_from < now() - timedelta(seconds=seconds),
    )
    return session.scalars(query.order_by(Payment.waits_from).limit(limit)).all()


def forget_unsent(session: Session, seconds: float) -> None:
    """Tries that were made ready so long ago, and whose buyers never came back."""
    old = (Payment.state == "created") & (Payment.created_at < now() - timedelta(seconds=seconds))
    session.execute(update(Payment).where(old).values(state="expired", updated_at=now()))


def move(payment: Payment, state: str, problem: str | None = None) -> None:
    """It is locked by the caller."""
    log.info("payment=%s order=%s %s→%s %s", payment.id, payment.order_id, payment.state, state, problem or "")
    payment.state, payment.problem, payment.updated_at = state, problem, now()
    telemetry.PAYMENTS.labels(state).inc()


def _sent(payment: Payment) -> Payment:
    if payment.state == "created":
        payment.waits_from = now()
        move(payment, "pending")
    return payment


def _trade_no() -> str:
    """20 letters and digits: 9 of the time, and what nobody can guess."""
    return _in_digits(time.time_ns() // 1_000_000, 9) + _in_digits(secrets.randbelow(len(_DIGITS) ** 11), 11)


def _in_digits(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
