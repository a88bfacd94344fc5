"""What the publisher says is on the bus is there; what is not, it says, and soon, whatever the broker does."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from celery import Celery
from pydantic import SecretStr

from control.bus import names
from control.bus.app import make_app
from control.bus.confirmed import Confirmed
from control.bus.consumer import refusal
from control.bus.publish import Announcement, Outgoing, publisher_of, send, use_publisher
from control.bus.relay import Relay
from control.bus.topology import BROADCASTS, EVENTS, FAILURES, TASKS
from control.errors import BrokerUnavailable, MessageRefused
from control.ledger import outbox
from control.ledger.engine import Ledger
from control.settings import BusSettings
from tests import brokers
from tests.bus import until
from tests.integration.rabbitmq.wire import app_on, channel, depth, headers_of, key_of, payload_of, take, took

SECONDS = 1.5
SOON = 2.0
"""Besides what is waited for: to connect, and to hang up on a broker that does not listen."""
SPEC = names.HANDLE_FACT


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    with app_on(broker_url, publish_seconds=SECONDS) as made:
        yield made


def outgoing(*numbers: int) -> list[Outgoing]:
    return [Outgoing(SPEC, {"number": number}) for number in numbers]


def numbers_in(url: str, number: int) -> list[int]:
    return [payload_of(message)["number"] for message in take(url, SPEC.queue, number)]


# --- a broker that works ----------------------------------------------------------------------------------------------


def test_what_was_confirmed_is_there_and_in_order(app: Celery, broker_url: str) -> None:
    assert publisher_of(app).publish(outgoing(*range(300))) == [None] * 300
    assert depth(broker_url, SPEC.queue) == 300  # at once: that is what the confirmation means
    assert numbers_in(broker_url, 300) == list(range(300))


def test_the_message_is_celerys(app: Celery, broker_url: str) -> None:
    """As Celery itself would send it, so that any worker of Celery's can read it."""
    task_id = send(app, SPEC, {"fact": "x"})
    app.send_task(SPEC.name, kwargs={"fact": "x"}, task_id=task_id, ignore_result=True)
    ours, theirs = take(broker_url, SPEC.queue, 2)
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert key_of(ours) == key_of(theirs) == SPEC.routing_key
    mine, others = headers_of(ours), headers_of(theirs)
    assert mine.keys() >= others.keys()
    told = {"id", "task", "lang", "root_id", "retries", "ignore_result", "eta", "expires", "timelimit", "group"}
    assert {name: mine[name] for name in told} == {name: others[name] for name in told}
    for name in ("content_type", "content_encoding", "correlation_id", "delivery_mode"):
        assert ours.properties[name] == theirs.properties[name], name


def test_workers_take_it(app: Celery, broker_url: str) -> None:
    send(app, SPEC, {})
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(SPEC.queue, no_ack=True, queue_opts={"no_declare": True}).get(timeout=5)
        assert refusal(SPEC, message) is None
        assert refusal(names.RECONCILE, message) is not None


def test_eight_threads_at_once(broker_url: str) -> None:
    """Over one connection, each message once."""
    with app_on(broker_url) as app, ThreadPoolExecutor(8) as pool:
        starts = range(0, 1600, 200)
        sent = pool.map(lambda start: publisher_of(app).publish(outgoing(*range(start, start + 200))), starts)
        assert [problem for found in sent for problem in found] == [None] * 1600
    assert Counter(numbers_in(broker_url, 1600)) == Counter(range(1600))


def test_one_by_one_from_eight_threads_is_one_connection(
    app: Celery, broker_url: str, rabbitmq: brokers.RabbitMQ
) -> None:
    """All of them find it closed at first, and once more when it was closed again."""
    gate = threading.Barrier(8)
    before = connections(rabbitmq.port)

    def one(number: int) -> None:
        gate.wait()
        send(app, SPEC, {"number": number})

    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        assert connections(rabbitmq.port) - before == 1
        assert sorted(numbers_in(broker_url, 8)) == list(range(8))
        publisher_of(app).close()


def test_what_has_no_place_is_refused(app: Celery, broker_url: str) -> None:
    """Neither a queue for it nor one for what has none: an outbox keeps it until there is."""
    with channel(broker_url) as made:
        made.queue_unbind(SPEC.queue, TASKS.name, f"{SPEC.queue}.#")
        made.queue_unbind(names.FAILED, FAILURES.name, "#")
    with pytest.raises(MessageRefused, match="afterlive topology"):
        send(app, SPEC, {})
    # What has a place takes it, before and after, on the connection there is.
    mixed = [Outgoing(spec, {}) for spec in (names.TRANSCODE_CHUNK, SPEC, names.TRANSCODE_CHUNK)]
    found = publisher_of(app).publish(mixed)
    assert [type(problem) for problem in found] == [type(None), MessageRefused, type(None)]
    assert depth(broker_url, names.LOW) == 2


def test_everybody_hears_a_broadcast(app: Celery, broker_url: str) -> None:
    publisher_of(app).broadcast({"kind": "nobody listens"})
    with channel(broker_url) as made:
        queues = [made.queue_declare("", exclusive=True).queue for _ in range(3)]
        for queue in queues:
            made.queue_bind(queue, BROADCASTS.name)
        publisher_of(app).broadcast({"kind": "cancel"})
        for queue in queues:
            # Fanned out before it was confirmed.
            assert json.loads(made.basic_get(queue, no_ack=True).body) == {"kind": "cancel"}


def test_events_go_to_whoever_wants_them(app: Celery, broker_url: str) -> None:
    events = [Announcement(name, {"name": name}) for name in ("replay.playable", "order.placed", "replay.completed")]
    assert publisher_of(app).announce(events) == [None] * 3  # that nobody listens is no problem
    with channel(broker_url) as made:
        queue = made.queue_declare("", exclusive=True).queue
        made.queue_bind(queue, EVENTS.name, "replay.*")
        publisher_of(app).announce(events)
        heard = [json.loads(made.basic_get(queue, no_ack=True).body)["name"] for _ in range(2)]
    assert heard == ["replay.playable", "replay.completed"]


def test_closed_it_leaves_nothing_and_opens_again(app: Celery, broker_url: str, rabbitmq: brokers.RabbitMQ) -> None:
    before = (connections(rabbitmq.port), publishers())
    publisher_of(app).close()  # that was never open
    for _ in range(3):
        send(app, SPEC, {})
        assert (connections(rabbitmq.port), publishers()) == (before[0] + 1, before[1] + 1)
        publisher_of(app).close()
        publisher_of(app).close()
        assert (connections(rabbitmq.port), publishers()) == before


def connections(port: int) -> int:
    """Of this process to a broker."""
    found = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in found)


def publishers() -> int:
    return sum(thread.name == "publisher" for thread in threading.enumerate())


# --- a broker that does not ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.RabbitMQ]:
    """One to be ill-treated."""
    with brokers.rabbitmq(tmp_path_factory.mktemp("ill-treated")) as made:
        yield made


@pytest.fixture
def url(broker: brokers.RabbitMQ) -> str:
    return broker.vhost()


@pytest.fixture
def ill(url: str) -> Iterator[Celery]:
    with app_on(url, publish_seconds=SECONDS) as made:
        send(made, SPEC, {"number": -1})
        yield made


@pytest.fixture
def alarm(broker: brokers.RabbitMQ) -> Iterator[Any]:
    """Calling it with True raises the memory alarm, with False ends it."""

    def ring(on: bool) -> None:
        broker.ctl("set_vm_memory_high_watermark", "0.00001" if on else "0.6")

    yield ring
    ring(False)


def test_under_a_memory_alarm_it_says_so_in_time(
    ill: Celery, url: str, broker: brokers.RabbitMQ, alarm: Any, settings: Any, ledger: Ledger
) -> None:
    """The broker takes connections, and reads nothing from them. What was accepted waits in the outbox."""
    alarm(True)
    for _ in range(3):
        started = time.monotonic()
        found = publisher_of(ill).publish(outgoing(*range(200)))
        assert SECONDS - 0.5 < took(started) < SECONDS + SOON
        assert all(isinstance(problem, BrokerUnavailable) for problem in found)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        publisher_of(ill).broadcast({"kind": "x"})
    with pytest.raises(BrokerUnavailable):
        send(ill, SPEC, {})
    assert took(started) < 2 * (SECONDS + SOON)
    # However often it is tried, connections do not pile up.
    assert connections(broker.port) <= 1

    relay = Relay(ledger, ill)
    relay.start()
    with ledger.write() as session:
        for number in range(1000, 1010):
            outbox.add(session, SPEC, {"number": number})
    with ledger.read() as session:
        assert outbox.depth(session) == 10
    time.sleep(SECONDS)
    alarm(False)

    def left() -> int:
        with ledger.read() as session:
            return outbox.depth(session)

    until(lambda: left() == 0, "the outbox is empty", seconds=20)
    relay.stop()
    assert publisher_of(ill).publish(outgoing(2000)) == [None]
    arrived = [payload_of(message).get("number") for message in take(url, SPEC.queue, 12)]
    assert set(range(1000, 1010)) | {-1, 2000} <= set(arrived)


def test_killed_it_is_missed_at_once_and_found_again(ill: Celery, url: str, broker: brokers.RabbitMQ) -> None:
    stop = threading.Event()
    problems: list[Any] = []
    confirmed: list[int] = []

    def go_on() -> None:
        number = 0
        while not stop.is_set():
            (problem,) = publisher_of(ill).publish(outgoing(number))
            problems.append(problem)
            if problem is None:
                confirmed.append(number)
            number += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    until(lambda: len(confirmed) > 20, "it goes on")
    broker.kill()
    started = time.monotonic()
    until(lambda: problems[-1] is not None, "it is missed", seconds=SECONDS + SOON)
    with pytest.raises(BrokerUnavailable):
        send(ill, SPEC, {})
    assert took(started) < SECONDS + SOON
    before = len(confirmed)
    broker.start()
    until(lambda: len(confirmed) > before + 20, "it goes on", seconds=30)
    stop.set()
    thread.join()
    assert all(problem is None or isinstance(problem, BrokerUnavailable) for problem in problems)
    arrived = Counter(payload_of(message)["number"] for message in take(url, SPEC.queue, len(confirmed)))
    assert set(confirmed) <= arrived.keys()
    assert all(arrived[number] == 1 for number in confirmed)


def test_closed_while_somebody_waits(ill: Celery, alarm: Any) -> None:
    """A process that ends must not wait for a broker that does not answer."""
    settings = BusSettings(_env_file=None, broker_url=SecretStr(ill.conf.broker_url))
    other = make_app(settings)
    slow = Confirmed(other, settings.broker_url.get_secret_value(), timeout_seconds=60)
    use_publisher(other, slow)
    send(other, SPEC, {})
    alarm(True)
    # One that is on its way as the alarm begins may still be taken.
    until(lambda: publisher_of(ill).publish(outgoing(2)) != [None], "the broker takes no more")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow.publish, outgoing(1))
        until(lambda: waiting.running(), "it waits")
        time.sleep(0.3)
        started = time.monotonic()
        slow.close()
        assert isinstance(waiting.result(5)[0], BrokerUnavailable)
        assert took(started) < 2 * SOON
