"""Several at a time: what happened is told once, and an endpoint gets only so much at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from control.ledger import webhook_attempts, webhook_deliveries, webhook_endpoints, webhooks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.webhook_attempts import Outcome, Policy
from control.ledger.webhook_models import WebhookDelivery
from control.settings import Settings

POLICY = Policy(retry_seconds=(5,), disable_seconds=86400, in_flight=2, total_seconds=15)
THREADS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Ledger]:
    """Of both kinds."""
    url = settings.ledger.url
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").database()
    made = Ledger(url)
    made.create()
    with made.write() as session:
        webhook_endpoints.create(session, url="https://shop.example", events=["order.paid"])
    yield made
    made.close()


def emit(ledger: Ledger, order_id: str, gate: threading.Barrier | None = None) -> None:
    if gate:
        gate.wait(10)
    with ledger.write() as session:
        webhooks.emit(session, "order.paid", about=order_id, data={})


def deliveries(ledger: Ledger) -> list[WebhookDelivery]:
    with ledger.read() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def messages(ledger: Ledger) -> dict[int, tuple[str, int]]:
    """By their rows: what is told of one delivery at two times is two messages."""
    with ledger.read() as session:
        rows = session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
        return {row.id: (row.payload["delivery_id"], row.payload["attempt"]) for row in rows}


def sent(ledger: Ledger) -> list[tuple[str, int]]:
    return list(messages(ledger).values())


def test_who_tells_the_same_at_once_tells_it_once(ledger: Ledger) -> None:
    gate = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: emit(ledger, "ord_1", gate), range(THREADS)))
    (made,) = deliveries(ledger)
    assert sent(ledger) == [(made.id, 0)]


def test_one_attempt_is_made_by_one(ledger: Ledger) -> None:
    emit(ledger, "ord_1")
    (delivery,) = deliveries(ledger)
    gate = threading.Barrier(THREADS)

    def attempt(_: int) -> bool:
        gate.wait(10)
        with ledger.write() as session:
            return webhook_attempts.claim(session, delivery.id, 0, POLICY) is not None

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(attempt, range(THREADS))) == 1


def test_an_endpoint_gets_only_so_much_at_once_and_all_of_it(ledger: Ledger) -> None:
    for number in range(THREADS):
        emit(ledger, f"ord_{number}")
    gate = threading.Barrier(THREADS)
    lock, under_way, most = threading.Lock(), 0, 0

    def work(delivery: WebhookDelivery) -> None:
        """A worker: its message, and whatever messages follow from that."""
        nonlocal under_way, most
        gate.wait(10)
        todo = [delivery.id]
        while todo:
            with ledger.write() as session:
                made = webhook_attempts.claim(session, todo.pop(), 0, POLICY)
            if made is None:
                continue
            with lock:
                under_way += 1
                most = max(most, under_way)
            before = messages(ledger)
            with lock:
                under_way -= 1
            with ledger.write() as session:
                webhook_attempts.note(session, made, Outcome(200), POLICY)
            todo += [each for row, (each, _) in messages(ledger).items() if row not in before]

    all_of_it = deliveries(ledger)
    with ledger.write() as session:
        for row in session.scalars(select(OutboxRow)):
            session.delete(row)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, all_of_it))
    assert {(one.state, one.attempts) for one in deliveries(ledger)} == {("delivered", 1)}
    assert most <= POLICY.in_flight


def test_one_that_fails_gets_one_at_a_time(ledger: Ledger) -> None:
    for number in range(4):
        emit(ledger, f"ord_{number}")
    first, *others = deliveries(ledger)

    def claimed(*wanted: WebhookDelivery) -> list[webhook_attempts.Attempt]:
        with ledger.write() as session:
            made = [webhook_attempts.claim(session, one.id, 0, POLICY) for one in wanted]
        return [one for one in made if one]

    (attempt,) = claimed(first)
    with ledger.write() as session:
        webhook_attempts.note(session, attempt, Outcome(500, "it answered 500"), POLICY)
    (attempt,) = claimed(*others)
    before = set(sent(ledger))
    with ledger.write() as session:  # and once it does not, the window is as wide as ever
        webhook_attempts.note(session, attempt, Outcome(200), POLICY)
    assert set(sent(ledger)) == before, "those it sends were on their way already"
    assert [one.waits_for_turn for one in deliveries(ledger)] == [False] * 4
    assert len(claimed(*others)) == 2


def test_who_lost_the_claim_changes_nothing(ledger: Ledger) -> None:
    """It was away for so long that another took over, and is at it."""
    emit(ledger, "ord_1")
    (delivery,) = deliveries(ledger)
    with ledger.write() as session:
        late = webhook_attempts.claim(session, delivery.id, 0, POLICY)
        session.get_one(WebhookDelivery, delivery.id).claimed_until = None
        session.flush()
        second = webhook_attempts.claim(session, delivery.id, 0, POLICY)
    assert late
    assert second
    with ledger.write() as session:
        webhook_attempts.note(session, late, Outcome(500, "it answered 500"), POLICY)
    assert deliveries(ledger)[0].attempts == 0
    with ledger.write() as session:
        webhook_attempts.note(session, second, Outcome(200), POLICY)
    assert (deliveries(ledger)[0].state, deliveries(ledger)[0].attempts) == ("delivered", 1)


def test_what_is_lost_is_sent_again_once(ledger: Ledger) -> None:
    """On the way for long, waiting for a turn while others are sent, being sent: only the first is lost."""
    for number in range(3):
        emit(ledger, f"ord_{number}")
    lost, waiting, busy = deliveries(ledger)
    with ledger.write() as session:
        assert webhook_attempts.claim(session, busy.id, 0, POLICY)
        for delivery in (lost, waiting, busy):
            session.get_one(WebhookDelivery, delivery.id).next_at = now() - timedelta(minutes=6)
        session.get_one(WebhookDelivery, waiting.id).waits_for_turn = True
    before = sent(ledger)
    gate = threading.Barrier(2)

    def sweep(_: int) -> int:
        gate.wait(10)
        with ledger.write() as session:
            return webhook_deliveries.send_lost(session)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(sweep, range(2))) == 1
    assert sent(ledger)[len(before) :] == [(lost.id, 0)]
    with ledger.write() as session:
        assert webhook_deliveries.send_lost(session, bus_is_empty=True) == 3
