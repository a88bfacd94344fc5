"""What a gateway says of a trade, by a notice or asked, and what follows from it.

Whatever comes twice, late or in another order ends the same: money that was taken pays the order, or is given back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.gateways.base import TradeReport
from control.ledger import orders, outbox, payment_refunds, payments, webhooks
from control.ledger.base import now
from control.ledger.order_models import Order
from control.ledger.payment_models import Payment

# A gateway says that it failed before it has settled it.
_ASK_AGAIN_SECONDS: Final = 5
_SETTLED: Final = ("paid", "refunding", "refunded")


def hear(session: Session, report: TradeReport, *, accept_simulated: bool = False) -> str:
    """Take the report in; what came of it, a word:

    paid; too-late, paid-twice (the money goes back); already, late (known, or overtaken: nothing changes); failed;
    open; simulated (a trial, nothing changes); mismatch, in-review (a person has to look); unknown-trade.
    """
    outcome = _hear(session, report, accept_simulated)
    telemetry.PAYMENT_REPORTS.labels(report.gateway, "answer" if report.asked else "notice", outcome).inc()
    level = payments.log.warning if outcome in ("mismatch", "unknown-trade", "simulated") else payments.log.info
    level("trade=%s %s said %s: %s", report.trade_no, report.gateway, report.code, outcome)
    return outcome


def expire(session: Session, payment_id: str, seconds: float) -> bool:
    """Wait no longer for a payment that is older than that; the gateway was asked before."""
    _, payment = payments.locked(session, payment_id)
    if payment.state not in payments.OPEN or payment.created_at > now() - timedelta(seconds=seconds):
        return False
    payments.move(payment, "expired")
    return True


def _hear(session: Session, report: TradeReport, accept_simulated: bool) -> str:
    found = payments.locked_by_trade(session, report.trade_no)
    if found is None:
        return "unknown-trade"
    order, payment = found
    payment.waits_from = at = now()
    if report.standing == "paid":
        return _paid(session, order, payment, report, accept_simulated)
    if report.standing == "failed":
        return _failed(session, order, payment, report)
    if report.asked:
        # Who asks too often is turned away, and most of those that wait so long were left by their buyers.
        payment.waits_from = at + (at - payment.created_at) / 2
    if payment.state == "created" or (payment.state == "failed" and report.asked and report.standing == "open"):
        # Its own word, asked for: the buyer may still pay.
        payments.move(payment, "pending")
    return "open"


def _paid(session: Session, order: Order, payment: Payment, report: TradeReport, accept_simulated: bool) -> str:
    if report.simulated and not accept_simulated:
        payment.simulated = True
        return "simulated"
    wrong = _wrong(payment, report)
    if payment.state in _SETTLED:
        if wrong or report.gateway_trade_no not in ("", payment.gateway_trade_no):
            payment.problem = wrong or "second-trade"
            return "mismatch"
        return "already"
    if payment.state == "review" and (payment.refund_reason or not report.asked):
        # It said two things; only its answer to a question of ours settles that.
        return "mismatch" if wrong else "in-review"
    if wrong or (report.simulated is None and payment.simulated and not accept_simulated):
        payments.move(payment, "review", wrong or "simulated-before")
        return "mismatch"
    payment.gateway_trade_no, payment.method = report.gateway_trade_no, report.method
    payment.paid_at = _at(payment, report)
    taken = orders.pay(session, order, at=payment.paid_at)
    if taken == "paid":
        payments.move(payment, "paid")
        return "paid"
    reason = "paid-twice" if taken == "already" else "too-late"
    payment_refunds.begin(session, payment, reason)
    return reason


def _failed(session: Session, order: Order, payment: Payment, report: TradeReport) -> str:
    if payment.state not in payments.OPEN:
        return "already" if payment.state == "failed" else "late"
    payments.move(payment, "failed", f"{report.gateway}-{report.code}"[:64])
    told: dict[str, Any] = {
        "payment_id": payment.id,
        "order_id": order.id,
        "seller_id": order.seller_id,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "problem": {"code": payment.problem},
    }
    webhooks.emit(session, "payment.failed", about=payment.id, data=told)
    if not report.asked:
        outbox.add(session, names.RETRY_FAILED_PAYMENT, {"payment_id": payment.id}, delay_seconds=_ASK_AGAIN_SECONDS)
    return "failed"


def _wrong(payment: Payment, report: TradeReport) -> str | None:
    """What does not fit, where anything does not."""
    fits = {
        "gateway-mismatch": report.gateway == payment.gateway,
        "merchant-mismatch": report.merchant_id == payment.merchant_id,
        "currency-mismatch": report.currency == payment.currency,
        "amount-mismatch": report.amount_minor == payment.amount_minor,
        # ECPay signs without regard to case.
        "order-mismatch": report.payment_id.lower() in ("", payment.id),
    }
    return next((problem for problem, does in fits.items() if not does), None)


def _at(payment: Payment, report: TradeReport) -> datetime:
    """When it was paid; of a clock that cannot be right, now."""
    at = now()
    return report.paid_at if report.paid_at and payment.created_at <= report.paid_at <= at else at
