"""The outbox relay: in order, at once, at least once, whatever the broker does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from control.bus import relay as relay_module
from control.bus.app import make_app
from control.bus.names import PROCESS_ORDER
from control.bus.publish import Announcement, Outgoing, use_publisher
from control.bus.relay import Relay
from control.errors import AfterliveError, BrokerUnavailable, MessageRefused
from control.ledger import outbox
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.settings import Settings
from tests.bus import bus, catalogued, spec_of, until

SPEC = spec_of("tests.relayed")


@pytest.fixture(autouse=True)
def _catalogue() -> Iterator[None]:
    with catalogued(SPEC):
        yield


def add(ledger: Ledger, *numbers: int, delay_seconds: float = 0) -> None:
    with ledger.write() as session:
        for number in numbers:
            outbox.add(session, SPEC, {"number": number}, delay_seconds=delay_seconds)


def left(ledger: Ledger) -> int:
    with ledger.read() as session:
        return outbox.depth(session)


class Broker:
    """Stands for a broker that is away now and then."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.refuse: Callable[[int], bool] = lambda _: False
        self.full: Callable[[int], bool] = lambda _: False
        self.asked = 0

    def publish(self, messages: Sequence[Outgoing]) -> list[AfterliveError | None]:
        self.asked += 1
        return [self._take(message.payload["number"]) for message in messages]

    def _take(self, number: int) -> AfterliveError | None:
        if self.full(number):
            return MessageRefused(task=SPEC.name, reason="its queue is full")
        if self.refuse(number):
            return BrokerUnavailable(reason="the broker is away")
        self.got.append(number)
        return None

    def announce(self, events: Sequence[Announcement]) -> list[AfterliveError | None]:
        return [None] * len(events)

    def broadcast(self, word: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def relay(settings: Settings, ledger: Ledger, broker: Broker) -> Iterator[Relay]:
    app = make_app(settings.bus)
    use_publisher(app, broker)
    made = Relay(ledger, app)
    yield made
    made.stop()


@pytest.fixture
def looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what a commit wakes it for."""
    monkeypatch.setattr(relay_module, "_LOOK_EVERY_SECONDS", 3600.0)


@pytest.mark.usefixtures("looks_at_nothing")
def test_from_commit_to_body(settings: Settings, ledger: Ledger) -> None:
    arrived: list[int] = []
    with bus(settings, (SPEC, lambda number: arrived.append(number)), modules=()) as running:
        for number in range(3):
            add(running.ledger, number)
            until(lambda number=number: arrived == list(range(number + 1)), "it")  # type: ignore[misc]
        until(lambda: left(ledger) == 0, "they are marked")


def test_order_is_that_of_the_transactions(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    for number in range(0, 20, 2):
        add(ledger, number, number + 1)
    relay.run_once()
    assert broker.got == list(range(20))
    assert left(ledger) == 0


def test_batches_are_bounded(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    add(ledger, *range(450))
    assert [relay.run_once() for _ in range(4)] == [200, 200, 50, 0]
    assert broker.got == list(range(450))


def test_what_was_sent_is_marked_though_the_broker_went_away(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    add(ledger, 0, 1, 2, 3)
    broker.refuse = lambda number: number >= 2
    with pytest.raises(BrokerUnavailable):
        relay.run_once()
    assert (broker.got, left(ledger)) == ([0, 1], 2)
    broker.refuse = lambda _: False
    relay.run_once()
    assert (broker.got, left(ledger)) == ([0, 1, 2, 3], 0)


def test_it_goes_on_when_the_broker_is_back_and_does_not_hammer(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    broker.refuse = lambda _: True
    relay.start()
    add(ledger, 0)
    until(lambda: broker.asked, "a first try")
    for number in range(1, 50):  # commits wake it; the broker is away all the same
        add(ledger, number)
    time.sleep(0.5)
    assert broker.asked <= 3
    broker.refuse = lambda _: False
    until(lambda: len(broker.got) == 50, "all of it", seconds=20)
    assert broker.got == list(range(50))


def test_rows_of_other_processes_are_found_by_looking(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    relay.start()
    relay._forget()  # as if the commit were another process's
    add(ledger, 1)
    until(lambda: broker.got, "its next look", seconds=3)


def test_a_row_whose_time_has_not_come_waits(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    add(ledger, 1, delay_seconds=0.5)
    assert relay.run_once() == 0
    relay.start()
    until(lambda: broker.got, "its time", seconds=3)


def add_urgent(ledger: Ledger, number: int) -> None:
    with ledger.write() as session:
        outbox.add(session, PROCESS_ORDER, {"number": number})


def test_what_is_urgent_goes_first(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    add(ledger, 0, 1)
    add_urgent(ledger, 2)
    relay.run_once()
    assert broker.got == [2, 0, 1]


def test_a_process_that_gives_way_leaves_what_is_urgent_to_others_for_a_second(
    settings: Settings, relay: Relay, ledger: Ledger, broker: Broker
) -> None:
    app = make_app(settings.bus)
    use_publisher(app, broker)
    slow = Relay(ledger, app, gives_way=True)
    add_urgent(ledger, 0)
    add(ledger, 1)
    slow.run_once()
    assert broker.got == [1]
    relay.run_once()
    assert broker.got == [1, 0]
    add_urgent(ledger, 2)
    slow.start()
    try:
        until(lambda: broker.got == [1, 0, 2], "nobody else took it", seconds=5)
    finally:
        slow.stop()


def test_a_task_nobody_knows_does_not_hold_up_the_rest(
    relay: Relay, ledger: Ledger, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version wrote it, or an older one."""
    add(ledger, 1, 2)
    with ledger.write() as session:
        session.scalars(select(OutboxRow).order_by(OutboxRow.id)).first().task = "pipelines.unknown"  # type: ignore[union-attr]
    with caplog.at_level(logging.ERROR):
        relay.run_once()
        assert relay.run_once() == 0
    assert (broker.got, left(ledger)) == ([2], 1)
    assert "not in the catalogue" in caplog.text


def test_what_was_sent_and_could_not_be_marked_is_sent_again(
    relay: Relay, ledger: Ledger, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: a message that comes twice does no harm, one that is lost does."""
    add(ledger, 1, 2)

    def away(*_: Any) -> None:
        raise RuntimeError("the ledger is away")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "sent", away)
        with pytest.raises(RuntimeError, match="ledger"):
            relay.run_once()
    assert (broker.got, left(ledger)) == ([1, 2], 2)
    relay.run_once()
    assert (broker.got, left(ledger)) == ([1, 2, 1, 2], 0)


def test_a_full_queue_holds_up_no_other(
    relay: Relay, ledger: Ledger, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though more than a batch waits for it, and all of that is older."""
    monkeypatch.setattr(relay_module, "_REFUSED_SECONDS", 1.0)
    broker.full = lambda number: number < 450
    add(ledger, *range(450), 1000)
    relay.start()
    until(lambda: broker.got == [1000], "the one for another queue", seconds=3)
    broker.full = lambda _: False
    until(lambda: len(broker.got) == 451 and left(ledger) == 0, "the others, once there is room")


def test_nothing_of_a_transaction_that_was_undone_is_sent(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    def spoilt() -> None:
        with ledger.write() as session:
            outbox.add(session, SPEC, {"number": 1})
            session.flush()
            relay.wake()
            time.sleep(0.2)  # it looks, and sees nothing of it
            raise ZeroDivisionError

    relay.start()
    with pytest.raises(ZeroDivisionError):
        spoilt()
    add(ledger, 2)
    until(lambda: broker.got and left(ledger) == 0, "the next one")
    assert broker.got == [2]


@pytest.mark.usefixtures("looks_at_nothing")
def test_a_commit_wakes_it(relay: Relay, ledger: Ledger, broker: Broker) -> None:
    relay.start()
    for number in range(5):
        time.sleep(0.05)  # it sleeps again
        add(ledger, number)
        until(lambda number=number: number in broker.got, "it is sent")  # type: ignore[misc]
