"""The same notice many times at the same moment, on a database that has many writers: paid once, and nobody waits for
ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from control.bus import names
from control.errors import Conflict
from control.gateways import read_notice
from control.ledger import orders, payment_notices, payment_refunds, payments
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.payment_models import Payment, PaymentNotice
from control.ledger.task_models import TaskRow
from control.settings import Settings, use
from tests.ecpay import payment_settings
from tests.integration.test_ledger_races import at_once
from tests.paying import ECPAY, PAID_ONCE, do, history, notice_of, now_is, opened, order_of, over, told, waiting


@pytest.fixture(autouse=True)
def _settings(settings: Settings, ledger: Ledger) -> None:
    """The workers' ledger is this one."""
    at = settings.ledger.model_copy(update={"url": ledger.url})
    use(settings.model_copy(update={"ledger": at, "payment": payment_settings()}))


def together(*actions: Callable[[], Any]) -> list[Any]:
    """What each gives or raises, all begun at the same moment."""
    start = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def run(number: int, action: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[number] = action()
        except Exception as error:  # noqa: BLE001  (what is raised is the result)
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_one_notice_twenty_times_at_once_is_stored_and_read_once(ledger: Ledger) -> None:
    payment = opened(ledger)
    fields = notice_of(payment)
    new = together(*[lambda: told(ledger, fields)] * 20)
    assert sorted(new) == [[False]] * 19 + [[True]]
    (row,) = waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)
    assert together(*[lambda: do(row)] * 20) == [None] * 20
    assert now_is(ledger, payment.id).state == "paid"
    assert history(ledger, payment) == PAID_ONCE
    with ledger.read() as session:
        tasks = session.scalars(select(TaskRow).where(TaskRow.task == names.PROCESS_PAYMENT_WEBHOOK.name)).all()
    assert [task.state for task in tasks] == ["SUCCESS"]


def test_twenty_tasks_of_one_notice_pay_once(ledger: Ledger) -> None:
    """Each with an id of its own, as the reconciliation sends them: no inbox tells them apart."""
    payment = opened(ledger)
    told(ledger, notice_of(payment))
    with ledger.write() as session:
        for _ in range(19):
            payment_notices.resend(session, -60)
    rows = waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)
    assert len(rows) == 20
    assert together(*[lambda row=row: do(row) for row in rows]) == [None] * 20
    assert now_is(ledger, payment.id).state == "paid"
    assert history(ledger, payment) == PAID_ONCE


def test_groups_that_store_the_same_notices_do_not_wait_for_each_other(ledger: Ledger) -> None:
    """Two APIs, the same notices in another order: each takes them in one."""
    payment = opened(ledger)
    notices = [notice_of(payment, TradeNo=str(number)) for number in range(30)]
    results = together(*[lambda: told(ledger, *notices), lambda: told(ledger, *reversed(notices))] * 5)
    assert sum(sum(result) for result in results) == 30
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(PaymentNotice)) == 30
        assert session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.task.like("%webhook"))) == 30


def test_two_payments_of_one_order_at_once_one_pays_and_one_goes_back(ledger: Ledger) -> None:
    first = opened(ledger)
    second = opened(ledger, first.order_id, renew=True)
    told(ledger, notice_of(first), notice_of(second))
    assert together(*[lambda row=row: do(row) for row in waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)]) == [None] * 2
    assert sorted(now_is(ledger, one.id).state for one in (first, second)) == ["paid", "refunding"]
    assert history(ledger, first) == PAID_ONCE
    assert len(waiting(ledger, names.REFUND_PAYMENT)) == 1


def test_paying_and_expiring_at_once_end_in_one_of_the_two(ledger: Ledger) -> None:
    """Either the money comes first, or it takes the stock again; it is never lost."""
    for _ in range(10):
        payment = opened(ledger)
        told(ledger, notice_of(payment))
        with ledger.read() as session:
            (kept,) = payment_notices.of_trade(session, payment.trade_no)
        results = at_once(
            ledger,
            lambda session, order_id=payment.order_id: over(session, order_id),  # type: ignore[misc]
            lambda session, notice_id=kept.id: payment_notices.process(session, notice_id, read_notice),  # type: ignore[misc]
        )
        assert results[1] == "paid"
        assert results[0] is None or isinstance(results[0], Conflict)
        assert (now_is(ledger, payment.id).state, order_of(ledger, payment).state) == ("paid", "paid")


def test_opened_at_once_it_is_one_payment(ledger: Ledger) -> None:
    order_id = opened(ledger).order_id

    def open_it(session: Any) -> str:
        return payments.open_for(session, orders.get(session, order_id, lock=True), ECPAY).id

    assert len(set(at_once(ledger, *[open_it] * 8))) == 1
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Payment)) == 1


def test_a_refund_asked_for_at_once_is_one(ledger: Ledger) -> None:
    payment = opened(ledger)
    told(ledger, notice_of(payment))
    do(waiting(ledger, names.PROCESS_PAYMENT_WEBHOOK)[0])
    states = at_once(ledger, *[lambda session: payment_refunds.request(session, payment.id).state] * 8)
    assert states == ["refunding"] * 8
    assert len(waiting(ledger, names.REFUND_PAYMENT)) == 1
