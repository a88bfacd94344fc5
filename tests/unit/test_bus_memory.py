"""The in-process broker: who waits is woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from kombu import Connection, Consumer, Message, Queue

from control.bus import memory


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection(transport=memory.Transport) as made:
        yield made


def consume(connection: Connection, queue: Queue, prefetch: int = 1) -> tuple[list[Message], Consumer]:
    got: list[Message] = []
    consumer = Consumer(connection, [queue], on_message=got.append, accept=["json"])
    consumer.qos(prefetch_count=prefetch)
    consumer.consume()
    return got, consumer


def test_a_message_wakes_its_consumer_at_once(connection: Connection) -> None:
    queue = Queue(uuid4().hex)
    got, _ = consume(connection, queue)
    sent: list[float] = []

    def send() -> None:
        with Connection(transport=memory.Transport) as other, other.Producer() as producer:
            sent.append(time.monotonic())
            producer.publish({}, routing_key=queue.name, declare=[queue])

    threading.Timer(0.2, send).start()
    connection.drain_events(timeout=5)
    assert len(got) == 1
    # Far less than the time between two looks of a consumer nobody wakes.
    assert time.monotonic() - sent[0] < memory._LONGEST_SECONDS / 2


def test_an_answer_makes_room_for_the_next(connection: Connection) -> None:
    queue = Queue(uuid4().hex)
    got, _ = consume(connection, queue, prefetch=1)
    with connection.Producer() as producer:
        for number in range(2):
            producer.publish({"number": number}, routing_key=queue.name, declare=[queue])
    connection.drain_events(timeout=1)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.05)
    done: list[float] = []

    def acknowledge() -> None:
        done.append(time.monotonic())
        got[0].ack()

    threading.Timer(0.1, acknowledge).start()
    connection.drain_events(timeout=5)
    assert [message.decode()["number"] for message in got] == [0, 1]
    assert time.monotonic() - done[0] < memory._LONGEST_SECONDS / 2


def test_waiting_takes_no_longer_than_told(connection: Connection) -> None:
    consume(connection, Queue(uuid4().hex))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 10


def test_who_waits_looks_up_at_once(connection: Connection) -> None:
    consume(connection, Queue(uuid4().hex))
    threading.Timer(0.1, memory.look_up).start()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=10)
    assert time.monotonic() - started < 5
