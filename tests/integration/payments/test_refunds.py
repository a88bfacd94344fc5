"""Money goes back once, whatever is lost."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from control.bus import names
from control.errors import Conflict, GatewayRefused, GatewayUnavailable
from control.ledger import payment_refunds
from control.ledger.engine import Ledger
from control.settings import current, use
from notify_worker.tasks import payment as tasks
from tests.ecpay import FakeEcpay, payment_settings
from tests.paying import (
    aged,
    do,
    notice_of,
    now_is,
    opened,
    order_of,
    paid,
    reconcile,
    told,
    waiting,
    work_off,
)


def test_a_refund_goes_back_once(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = paid(fake, ledger)
    for _ in range(2):
        with ledger.write() as session:
            assert payment_refunds.request(session, payment.id).state == "refunding"
    (row,) = waiting(ledger, names.REFUND_PAYMENT)
    do(row)
    do(row)
    assert now_is(ledger, payment.id).state == "refunded"
    assert fake.trade(payment.trade_no)["given_back"]
    assert order_of(ledger, payment).state == "refunded"
    assert [row.payload["fact"] for row in waiting(ledger, names.ADVANCE_ORDER)] == ["order.refunded"]
    with ledger.write() as session:
        assert payment_refunds.request(session, payment.id).state == "refunded"


def test_what_is_not_paid_cannot_be_refunded(ledger: Ledger) -> None:
    payment = opened(ledger)
    with pytest.raises(Conflict, match="pending"), ledger.write() as session:
        payment_refunds.request(session, payment.id)


def test_a_refusal_is_for_a_person_and_can_be_tried_again(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = paid(fake, ledger)
    with ledger.write() as session:
        payment_refunds.request(session, payment.id)
    (row,) = waiting(ledger, names.REFUND_PAYMENT)
    fake.lie(refund="refuse", hold=True)
    with pytest.raises(GatewayRefused) as caught:
        do(row)
    tasks._given_up(row.payload, caught.value)
    assert (now_is(ledger, payment.id).state, now_is(ledger, payment.id).problem) == ("review", "refund-refused")
    assert order_of(ledger, payment).state == "confirmed"
    fake.lie(hold=True)
    with ledger.write() as session:
        payment_refunds.request(session, payment.id)
    do(waiting(ledger, names.REFUND_PAYMENT)[-1])
    assert now_is(ledger, payment.id).state == "refunded"


def test_a_refund_whose_answer_was_lost_is_not_done_twice(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = paid(fake, ledger)
    with ledger.write() as session:
        payment_refunds.request(session, payment.id)
    (row,) = waiting(ledger, names.REFUND_PAYMENT)
    fake.lie(refund="lose", hold=True)
    with pytest.raises(GatewayUnavailable) as unanswered:
        do(row)
    tasks._given_up(row.payload, unanswered.value)
    assert now_is(ledger, payment.id).state == "refunding"
    fake.lie(hold=True)
    with pytest.raises(GatewayRefused) as refused:
        do(row)
    tasks._given_up(row.payload, refused.value)
    assert (now_is(ledger, payment.id).state, now_is(ledger, payment.id).problem) == ("review", "refund-unknown")


def test_a_refund_the_gateway_was_away_for_is_taken_up_again(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = paid(fake, ledger)
    with ledger.write() as session:
        payment_refunds.request(session, payment.id)
    aged(ledger, payment, 4000)
    reconcile()
    reconcile()
    assert len(waiting(ledger, names.REFUND_PAYMENT)) == 2  # the first, and one more
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "refunded"


def test_a_payment_of_another_merchant_s_time_keeps_its_own(ledger: Ledger) -> None:
    """The merchant of the settings changed since: what is told of the old one still fits it."""
    payment = opened(ledger)
    use(current().model_copy(update={"payment": payment_settings(merchant_id="2000132", hash_key=SecretStr("k"))}))
    told(ledger, notice_of(payment))
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"
