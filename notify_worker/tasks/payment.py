"""Payments: notices, questions to the gateway, refunds. No transaction waits for the gateway."""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy.orm import Session

from control.bus import names
from control.bus.task import task
from control.bus.work import Work
from control.errors import GatewayRefused, GatewayUnavailable, PaymentsOff
from control.gateways import PaymentGateway, TradeReport, gateway, read_notice
from control.ledger import consequences, payment_notices, payment_refunds, payment_reports, payments, tasks
from control.ledger.engine import Ledger, open_ledger
from control.settings import PaymentSettings, current

log = logging.getLogger("afterlive.payments")
_MOST_ASKED: Final = 200
# It is away, and the others need not find out one by one.
_MOST_UNANSWERED: Final = 3
_UNREAD_SECONDS: Final = 300
_REFUND_AGAIN_SECONDS: Final = 3600


def _ledger() -> Ledger:
    return open_ledger(current().ledger.url)


@task(names.PROCESS_PAYMENT_WEBHOOK)
def process_payment_webhook(notice_id: str, trade_no: str) -> None:
    """Have a stored notice its effect, and the order that it pays what follows."""
    accept = current().payment.accept_simulated

    def effect(session: Session) -> None:
        payment_notices.process(session, notice_id, read_notice, accept_simulated=accept)

    def effect_and_more(session: Session) -> None:
        with consequences.at_once(session):
            effect(session)

    try:
        tasks.once(_ledger(), effect_and_more)
    except consequences.Failed:
        log.exception("trade=%s: the payment is stored, what follows is left to a task", trade_no)
        tasks.once(_ledger(), effect)


@task(names.RETRY_FAILED_PAYMENT)
def retry_failed_payment(payment_id: str) -> None:
    """Ask the gateway what became of a payment; only where it was not paid, have another try ready for the buyer."""
    settings, ledger = current(), _ledger()
    with ledger.read() as session:
        payment = payments.get(session, payment_id)
    asked = gateway(settings)
    report = asked.query(payment.trade_no)
    tasks.once(ledger, lambda session: _heard(session, payment_id, report, asked, settings.payment))


def _given_up(payload: dict[str, Any], error: BaseException) -> None:
    """One that the gateway refuses is a person's; of one it does not answer to, the reconciliation sees to it."""
    if isinstance(error, GatewayRefused):
        with _ledger().write() as session:
            payment_refunds.refused(session, payload["payment_id"])


@task(names.REFUND_PAYMENT, gave_up=_given_up)
def refund_payment(payment_id: str) -> None:
    """Give the money back. The gateway gives back no more than was paid, however often it is asked."""
    ledger = _ledger()
    asked = gateway(current())
    with ledger.write() as session:
        wanted = payment_refunds.trying(session, payment_id)
    if wanted is not None:
        asked.refund(wanted)
    tasks.once(ledger, lambda session: payment_refunds.done(session, payment_id))


@task(names.RECONCILE_PAYMENTS)
def reconcile_payments(work: Work) -> None:
    """Find payments whose notices never came, notices that were never read, and refunds that were given up."""
    settings, ledger = current(), _ledger()
    try:
        _ask(ledger, gateway(settings), settings.payment, work)
    except PaymentsOff:
        log.debug("no payment gateway is set up")

    def effect(session: Session) -> None:
        payment_notices.resend(session, _UNREAD_SECONDS)
        payment_refunds.resend(session, _REFUND_AGAIN_SECONDS)
        payments.forget_unsent(session, settings.payment.expire_after_seconds)

    tasks.once(ledger, effect)


def _ask(ledger: Ledger, asked: PaymentGateway, settings: PaymentSettings, work: Work) -> None:
    with ledger.read() as session:
        silent = payments.silent(session, asked.name, settings.ask_after_seconds, _MOST_ASKED)
    unanswered = 0
    for payment in silent:
        work.check()
        try:
            report = asked.query(payment.trade_no)
        except (GatewayUnavailable, GatewayRefused) as error:
            unanswered += 1
            log.warning("payment=%s could not be asked for: %s", payment.id, error.detail)
            if unanswered >= _MOST_UNANSWERED:
                return
            continue
        with ledger.write() as session:
            _heard(session, payment.id, report, asked, settings)


def _heard(
    session: Session, payment_id: str, report: TradeReport, asked: PaymentGateway, settings: PaymentSettings
) -> None:
    """The same as of a notice; then what only an answer tells: that there is nothing to wait for."""
    payment_reports.hear(session, report, accept_simulated=settings.accept_simulated)
    if report.standing != "paid":
        payment_reports.expire(session, payment_id, settings.expire_after_seconds)
        payments.next_try(session, payment_id, asked)
