"""Money that goes back: asked for, or taken for an order it cannot pay any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import Conflict
from control.gateways.base import Refund
from control.ledger import orders, outbox, payments
from control.ledger.base import now
from control.ledger.payment_models import Payment

REQUESTED: Final = "requested"
_MOST_AGAIN: Final = 100


def request(session: Session, payment_id: str) -> Payment:
    """Give a paid payment back; asking twice is the same as once. Raises NotFound; Conflict where it is not paid."""
    _, payment = payments.locked(session, payment_id)
    if payment.state in ("refunding", "refunded"):
        return payment
    stuck = payment.state == "review" and payment.refund_reason is not None
    if payment.state != "paid" and not stuck:
        raise Conflict(reason=f"The payment {payment_id} is {payment.state}: only one that is paid can be refunded.")
    begin(session, payment, payment.refund_reason or REQUESTED)
    return payment


def begin(session: Session, payment: Payment, reason: str) -> None:
    """It is locked by the caller."""
    payment.refund_reason = reason
    payments.move(payment, "refunding")
    outbox.add(session, names.REFUND_PAYMENT, {"payment_id": payment.id})


def trying(session: Session, payment_id: str) -> Refund | None:
    """What the gateway is to be asked now, noted as a try; None where there is nothing to give back any more."""
    _, payment = payments.locked(session, payment_id)
    if payment.state != "refunding":
        return None
    payment.refund_tries += 1
    payment.updated_at = now()
    return Refund(
        payment.trade_no,
        payment.gateway_trade_no or "",
        payment.amount_minor,
        payment.currency,
        payment.method or "",
    )


def done(session: Session, payment_id: str) -> None:
    """The gateway gave it back. What only came too late never paid the order, and changes nothing of it."""
    order, payment = payments.locked(session, payment_id)
    # Another try of it may have been refused a moment ago, because of this one.
    if payment.state != "refunding" and not (payment.state == "review" and payment.refund_reason):
        return
    at = now()
    payment.refunded_at = at
    payments.move(payment, "refunded")
    if payment.refund_reason == REQUESTED:
        orders.refunded(session, order, at=at)


def refused(session: Session, payment_id: str) -> None:
    """The gateway will not. Where an earlier try was left without an answer, that one may have done it."""
    _, payment = payments.locked(session, payment_id)
    if payment.state == "refunding":
        payments.move(payment, "review", "refund-refused" if payment.refund_tries < 2 else "refund-unknown")


def resend(session: Session, seconds: float) -> int:
    """Have those tried again whose last try is so long ago: the gateway was away for longer than the tries took."""
    old = select(Payment).where(Payment.state == "refunding", Payment.updated_at < now() - timedelta(seconds=seconds))
    found = session.scalars(old.order_by(Payment.updated_at).limit(_MOST_AGAIN).with_for_update(key_share=True)).all()
    for payment in found:
        payment.updated_at = now()
        outbox.add(session, names.REFUND_PAYMENT, {"payment_id": payment.id})
    return len(found)
