"""What becomes of a payment that comes too late, or too often; and of one whose notices never came."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from control.bus import names
from control.errors import GatewayUnavailable
from control.ledger import payments
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.payment_models import PaymentNotice
from control.settings import current, use
from tests.ecpay import FakeEcpay, payment_settings
from tests.paying import (
    ECPAY,
    FAILED,
    aged,
    at_gateway,
    do,
    notice_of,
    now_is,
    opened,
    order_of,
    over,
    product,
    reconcile,
    reserved,
    told,
    waiting,
    work_off,
)


def test_late_money_pays_the_order_while_there_is_stock_else_it_goes_back(ledger: Ledger, fake: FakeEcpay) -> None:
    with ledger.write() as session:
        only_one = product(session, stock=1)
    payment = opened(ledger, product_id=only_one)
    at_gateway(fake, ledger, payment)
    with ledger.write() as session:
        over(session, payment.order_id)
        other = reserved(session, only_one)
    fake.pay(payment.trade_no)
    told(ledger, notice_of(payment, TradeNo=fake.trade(payment.trade_no)["TradeNo"]))
    work_off(ledger)
    found = now_is(ledger, payment.id)
    assert (found.state, found.refund_reason) == ("refunded", "too-late")
    assert fake.trade(payment.trade_no)["given_back"]
    assert order_of(ledger, payment).state == "expired"
    assert waiting(ledger, names.ADVANCE_ORDER)[-1].payload["fact"] == "order.expired"

    late = opened(ledger, other.id)
    with ledger.write() as session:
        over(session, other.id)
    told(ledger, notice_of(late))
    work_off(ledger)
    assert (now_is(ledger, late.id).state, order_of(ledger, late).state) == ("paid", "confirmed")


def test_of_two_payments_for_one_order_the_second_goes_back(ledger: Ledger, fake: FakeEcpay) -> None:
    first = opened(ledger)
    second = opened(ledger, first.order_id, renew=True)
    for payment in (first, second):
        at_gateway(fake, ledger, payment)
        fake.pay(payment.trade_no)
    told(ledger, *(notice_of(one, TradeNo=fake.trade(one.trade_no)["TradeNo"]) for one in (second, first)))
    work_off(ledger)
    states = {now_is(ledger, one.id).state for one in (first, second)}
    reasons = {now_is(ledger, one.id).refund_reason for one in (first, second)}
    assert states == {"paid", "refunded"}
    assert reasons == {None, "paid-twice"}
    assert order_of(ledger, first).state == "confirmed"


def test_a_failure_is_asked_about_before_another_try_is_made_ready(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = opened(ledger)
    at_gateway(fake, ledger, payment)
    fake.pay(payment.trade_no, fail=True)
    told(ledger, notice_of(payment, **FAILED))
    work_off(ledger)
    with ledger.read() as session:
        tries = payments.of_order(session, payment.order_id)
    assert [one.state for one in tries] == ["created", "failed"]
    assert tries[1].problem == "ecpay-10100248"
    assert opened(ledger, payment.order_id).id == tries[0].id  # that one the buyer is sent on with


def test_one_that_was_said_to_have_failed_and_was_paid_is_paid(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = opened(ledger)
    at_gateway(fake, ledger, payment)
    fake.pay(payment.trade_no)
    told(ledger, notice_of(payment, **FAILED))
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"
    with ledger.read() as session:
        assert len(payments.of_order(session, payment.order_id)) == 1


def test_a_gateway_that_does_not_answer_is_asked_again_and_no_try_is_made(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = opened(ledger)
    told(ledger, notice_of(payment, **FAILED))
    do(waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)[0])
    fake.lie(query="error", hold=True)
    with pytest.raises(GatewayUnavailable):
        do(waiting(ledger, names.RETRY_FAILED_PAYMENT)[0])
    with ledger.read() as session:
        assert [one.state for one in payments.of_order(session, payment.order_id)] == ["failed"]


def test_payments_whose_notices_never_came_are_found(ledger: Ledger, fake: FakeEcpay) -> None:
    lost, failed, young, left, old = (opened(ledger) for _ in range(5))
    with ledger.write() as session:
        unsent = payments.create(session, reserved(session), ECPAY)
    for payment in (lost, failed, young, left):
        at_gateway(fake, ledger, payment)
    for payment in (lost, young):
        fake.pay(payment.trade_no)
    fake.pay(failed.trade_no, fail=True)
    for payment in (lost, failed, left):
        aged(ledger, payment, 700)
    aged(ledger, unsent, 25 * 3600)
    aged(ledger, old, 25 * 3600)  # and its buyer never got as far as the gateway
    reconcile()
    states = [now_is(ledger, one.id).state for one in (lost, failed, young, left, old, unsent)]
    assert states == ["paid", "failed", "pending", "pending", "expired", "expired"]
    assert order_of(ledger, lost).state == "paid"
    asked = now_is(ledger, left.id).waits_from
    reconcile()
    assert now_is(ledger, left.id).waits_from == asked  # not each time: who asks too often is turned away


def test_a_gateway_that_is_away_is_not_asked_for_each(ledger: Ledger, fake: FakeEcpay) -> None:
    found = [opened(ledger) for _ in range(6)]
    for payment in found:
        aged(ledger, payment, 700)
    use(current().model_copy(update={"payment": payment_settings("http://127.0.0.1:1")}))
    reconcile()
    assert {now_is(ledger, one.id).state for one in found} == {"pending"}


def test_notices_that_were_never_read_are(ledger: Ledger) -> None:
    payment = opened(ledger)
    told(ledger, notice_of(payment))
    with ledger.write() as session:
        session.execute(update(PaymentNotice).values(received_at=now() - timedelta(seconds=600)))
        for row in waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK):
            session.delete(session.merge(row))  # the message was lost with its broker
    reconcile()
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"


def test_without_a_merchant_the_reconciliation_asks_nobody(ledger: Ledger) -> None:
    use(current().model_copy(update={"payment": payment_settings(merchant_id=None, hash_key=None, hash_iv=None)}))
    reconcile()
