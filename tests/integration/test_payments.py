"""What becomes of a payment whatever its notices do: come twice, late, in another order, wrong, or never."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from control.bus import names
from control.errors import AmountInvalid, Conflict, GatewayRefused, GatewayUnavailable
from control.gateways.base import Checkout
from control.ledger import payment_notices, payment_refunds, payments
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.order_models import Product
from control.ledger.payment_models import Payment, PaymentNotice
from control.settings import Settings, current, use
from notify_worker.tasks import payment as tasks
from pipelines import checkout
from tests.ecpay import FakeEcpay, fake_ecpay, notice, payment_settings
from tests.paying import (
    ECPAY,
    PAID_ONCE,
    do,
    history,
    notice_of,
    now_is,
    opened,
    order_of,
    outcomes,
    over,
    product,
    reconcile,
    reserved,
    told,
    waiting,
    work_off,
)

FAILED = {"RtnCode": "10100248"}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEcpay]:
    with fake_ecpay() as made:
        yield made


@pytest.fixture
def fake(server: FakeEcpay) -> Iterator[FakeEcpay]:
    """It tells the truth, and by itself nothing: notices are the tests'."""
    server.lie(hold=True)
    yield server
    server.lie()


@pytest.fixture
def settings(settings: Settings, server: FakeEcpay) -> Settings:
    made = settings.model_copy(update={"payment": payment_settings(server.url)})
    use(made)
    return made


@pytest.fixture
def ledger(ledger: Ledger, fake: FakeEcpay) -> Ledger:
    """The one of the settings in use, and a gateway that answers."""
    return ledger


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


# --- opening ----------------------------------------------------------------------------------------------------------


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


# --- notices ----------------------------------------------------------------------------------------------------------


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


# --- too late, too often ----------------------------------------------------------------------------------------------


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


# --- what the gateway is asked ----------------------------------------------------------------------------------------


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


def aged(ledger: Ledger, payment: Payment, seconds: float) -> None:
    before = now() - timedelta(seconds=seconds)
    with ledger.write() as session:
        values = {"waits_from": before, "created_at": before, "updated_at": before}
        session.execute(update(Payment).where(Payment.id == payment.id).values(values))


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


# --- refunds ----------------------------------------------------------------------------------------------------------


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
