"""What becomes of a payment whatever its notices do: come twice, late, in another order, wrong."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update

from control.bus import names
from control.errors import AmountInvalid, Conflict
from control.ledger import payment_notices, payments
from control.ledger.engine import Ledger
from control.ledger.order_models import Product
from control.ledger.payment_models import Payment
from control.settings import current, use
from pipelines import checkout
from tests.ecpay import FakeEcpay, notice, payment_settings
from tests.paying import (
    FAILED,
    PAID_ONCE,
    at_gateway,
    do,
    history,
    notice_of,
    now_is,
    opened,
    order_of,
    outcomes,
    over,
    reserved,
    told,
    waiting,
    work_off,
)


def test_one_is_open_at_a_time_and_another_follows_one_that_failed(ledger: Ledger) -> None:
    first = opened(ledger)
    assert (first.state, len(first.trade_no)) == ("pending", 20)
    assert opened(ledger, first.order_id).id == first.id
    told(ledger, notice_of(first, **FAILED))
    do(waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)[0])
    second = opened(ledger, first.order_id)
    assert second.id != first.id
    third = opened(ledger, first.order_id, renew=True)
    assert third.id != second.id
    assert [now_is(ledger, one.id).state for one in (first, second, third)] == ["failed", "expired", "pending"]


@pytest.mark.parametrize("state", ["expired", "cancelled"])
def test_only_a_reserved_order_can_be_paid(ledger: Ledger, state: str) -> None:
    with ledger.write() as session:
        order = reserved(session)
        over(session, order.id, state)
    with pytest.raises(Conflict, match=state):
        opened(ledger, order.id)


@pytest.mark.parametrize("changes", [{"total_minor": 129950}, {"currency": "USD"}])
def test_what_the_gateway_cannot_charge_is_no_payment(ledger: Ledger, changes: dict[str, Any]) -> None:
    with pytest.raises(AmountInvalid):
        opened(ledger, **changes)
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Payment)) == 0


def test_a_notice_pays_the_order_once_however_often_it_comes(ledger: Ledger) -> None:
    payment = opened(ledger)
    assert told(ledger, notice_of(payment), notice_of(payment)) == [True, True]  # of one group both are stored
    assert told(ledger, notice_of(payment)) == [False]
    (row,) = waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)
    do(row)
    do(row)  # the message came twice
    with ledger.write() as session:
        payment_notices.resend(session, -1)  # nothing waits to be read
    work_off(ledger)
    found = now_is(ledger, payment.id)
    assert (found.state, found.gateway_trade_no, found.method) == ("paid", "2510010000000001", "Credit_CreditCard")
    assert history(ledger, payment) == PAID_ONCE
    assert outcomes(ledger, payment) == ["paid"]
    assert waiting(ledger, names.ADVANCE_ORDER) == []


def test_what_follows_from_a_payment_loses_none(ledger: Ledger) -> None:
    """It cannot be done now: the payment is stored, and a task does it later."""
    payment = opened(ledger)
    with ledger.write() as session:
        session.execute(update(Product).values(reserved=0))  # somebody's mistake
    told(ledger, notice_of(payment))
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"
    assert history(ledger, payment) == ["reserved", "paid"]
    assert [row.payload["fact"] for row in waiting(ledger, names.ADVANCE_ORDER)] == ["order.paid"]
    with ledger.write() as session:
        session.execute(update(Product).values(reserved=1))
        checkout.advance(session, payment.order_id, "order.paid")
    assert history(ledger, payment) == PAID_ONCE


def test_a_copy_that_says_the_same_otherwise_changes_nothing(ledger: Ledger) -> None:
    """Replayed with other letters: ECPay's signature is blind to case."""
    payment = opened(ledger)
    told(ledger, notice_of(payment))
    work_off(ledger)
    told(ledger, notice_of(payment, CustomField1=payment.id.upper()))
    work_off(ledger)
    assert outcomes(ledger, payment) == ["paid", "already"]
    assert now_is(ledger, payment.id).problem is None


def test_a_success_wins_over_a_failure_in_either_order(ledger: Ledger) -> None:
    for first, second in ((FAILED, {}), ({}, FAILED)):
        payment = opened(ledger)
        told(ledger, notice_of(payment, **first))
        do(waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)[-1])
        told(ledger, notice_of(payment, **second))
        do(waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)[-1])
        assert now_is(ledger, payment.id).state == "paid"
        assert order_of(ledger, payment).state == "confirmed"
        assert outcomes(ledger, payment) in (["failed", "paid"], ["paid", "late"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"TradeAmt": "1298"}, "amount-mismatch"),
        ({"TradeAmt": "1300"}, "amount-mismatch"),
        ({"MerchantID": "2000132"}, "merchant-mismatch"),
        ({"CustomField1": "pay_of_another"}, "order-mismatch"),
    ],
)
def test_what_does_not_fit_is_for_a_person(
    ledger: Ledger, fake: FakeEcpay, caplog: pytest.LogCaptureFixture, changes: dict[str, str], problem: str
) -> None:
    payment = opened(ledger)
    at_gateway(fake, ledger, payment)
    told(ledger, notice_of(payment, **changes))
    work_off(ledger)
    found = now_is(ledger, payment.id)
    assert (found.state, found.problem) == ("review", problem)
    assert order_of(ledger, payment).state == "reserved"
    assert "mismatch" in caplog.text
    with pytest.raises(Conflict, match="looked at"):
        opened(ledger, payment.order_id)
    told(ledger, notice_of(payment))  # now it says another thing: who knows which is true?
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "review"
    fake.pay(payment.trade_no)
    with ledger.write() as session:
        payments.recheck(session, payment.id)
    work_off(ledger)
    assert (now_is(ledger, payment.id).state, now_is(ledger, payment.id).problem) == ("paid", None)


def test_a_trial_is_no_payment_unless_the_settings_say_so(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = opened(ledger)
    told(ledger, notice_of(payment, SimulatePaid="1"))
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "pending"
    assert outcomes(ledger, payment) == ["simulated"]
    told(ledger, notice_of(payment))  # the buyer pays after all, under the same number
    work_off(ledger)
    assert now_is(ledger, payment.id).state == "paid"

    use(current().model_copy(update={"payment": payment_settings(fake.url, accept_simulated=True)}))
    other = opened(ledger)
    told(ledger, notice_of(other, SimulatePaid="1"))
    work_off(ledger)
    assert now_is(ledger, other.id).state == "paid"


def test_after_a_trial_an_answer_that_does_not_tell_trials_is_for_a_person(ledger: Ledger, fake: FakeEcpay) -> None:
    payment = opened(ledger)
    at_gateway(fake, ledger, payment)
    told(ledger, notice_of(payment, SimulatePaid="1"))
    work_off(ledger)
    fake.pay(payment.trade_no)
    with ledger.write() as session:
        payments.recheck(session, payment.id)
    work_off(ledger)
    assert (now_is(ledger, payment.id).state, now_is(ledger, payment.id).problem) == ("review", "simulated-before")


def test_a_notice_of_a_trade_nobody_knows_is_kept_and_harms_nobody(ledger: Ledger) -> None:
    told(ledger, notice("STRANGER"))
    work_off(ledger)
    with ledger.read() as session:
        (kept,) = payment_notices.of_trade(session, "STRANGER")
    assert kept.outcome == "unknown-trade"
    assert kept.fields["TradeAmt"] == "1299"
    assert "CheckMacValue" not in kept.fields


def test_two_numbers_of_the_gateway_for_one_trade_are_seen(ledger: Ledger) -> None:
    payment = opened(ledger)
    told(ledger, notice_of(payment), notice_of(payment, TradeNo="another"))
    work_off(ledger)
    assert (now_is(ledger, payment.id).state, now_is(ledger, payment.id).problem) == ("paid", "second-trade")
