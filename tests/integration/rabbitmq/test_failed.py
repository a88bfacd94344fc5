"""Whatever fails finally is in the ledger, with all that is known of it and none of its secrets."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue

from control.bus import names
from control.bus.publish import Outgoing, send_message
from control.bus.topology import FAILURES, TASKS
from control.ledger import failures, tasks
from tests import chores
from tests.integration.rabbitmq.conftest import Works

SECRET = "hunter2-735"


@pytest.fixture
def clerk(works: Works) -> Works:
    """With the workers that take what fails."""
    works.platform.consuming(works.platform.worker("fast"), works.platform.worker("notify"))
    return works


def state(works: Works, task_id: str) -> str | None:
    with works.ledger.read() as session:
        row = tasks.get(session, task_id)
    return row.state if row else None


def test_each_kind_of_failure(clerk: Works) -> None:
    """One platform for all: starting its processes is what takes time."""
    refused = clerk.send(chores.FAIL, number=1, code=SECRET)
    tried = clerk.send(chores.FAIL, number=2, code=SECRET, passes=True)
    wrong = clerk.send(chores.SELL, nombre=3)
    late = Outgoing(chores.LATE, {"number": 4, "code": SECRET}, since=time.time() - 5)
    send_message(clerk.app, late)
    in_time = clerk.send(chores.LATE, number=5, code=SECRET)
    raw = raw_messages(clerk)

    row = clerk.until(lambda: clerk.failed(refused), "the failure is known")
    assert (row.task, row.queue, row.reason, row.code, row.attempts) == (
        "tests.fail", names.HIGH, "failed", "recording-unusable", 1,
    )  # fmt: skip
    assert row.payload == {"number": 1, "code": "***"}
    assert row.exception == "control.errors.InputError"
    assert "in fail" in row.traceback
    assert row.published_at <= row.failed_at <= row.received_at

    row = clerk.until(lambda: clerk.failed(tried), "all its tries are done")
    assert (row.reason, row.code, row.attempts) == ("failed", "transient-error", 3)

    row = clerk.until(lambda: clerk.failed(wrong), "a wrong payload")
    assert (row.reason, row.code, row.attempts) == ("failed", "payload-invalid", 1)

    row = clerk.until(lambda: clerk.failed(late.task_id), "what came too late")
    assert (row.reason, row.code) == ("expired", "expired")
    clerk.until(lambda: state(clerk, in_time) == "SUCCESS", "what came in time is done")
    assert clerk.effects() == (1, 1)  # the late one never was

    for name, (task_id, reason) in raw.items():
        row = clerk.until(lambda task_id=task_id: clerk.failed(task_id), name)
        assert row.reason == reason, name
    clerk.until(lambda: [row for row in _all(clerk) if row.code == "unreadable"], "what cannot be read is noted too")
    with clerk.ledger.read() as session:
        everything = failures.page(session, limit=1000, state=None)
        shown = json.dumps([[row.payload, row.detail, row.traceback, row.exception] for row in everything])
    assert SECRET not in shown
    for process in clerk.platform.processes.values():
        assert SECRET not in process.said()
    metrics = clerk.platform.processes["fast-0"].metrics()
    assert 'afterlive_task_expired_total{task="tests.late"} 1.0' in metrics
    assert 'afterlive_failed_tasks{task="tests.fail"} 2.0' in metrics
    assert SECRET not in metrics


def raw_messages(works: Works) -> dict[str, tuple[str, str]]:
    """What no publisher of ours would send: name → the task's id and the reason it must be given."""
    sent = {}
    # Confirmed: what is sent just before a connection is closed may else be lost.
    with Connection(works.platform.broker_url, transport_options={"confirm_publish": True}) as connection:
        producer: Any = connection.Producer(serializer="json")

        def publish(name: str, reason: str, body: Any, key: str, task: str | None, **more: Any) -> None:
            task_id = f"raw-{name.replace(' ', '-')}"
            headers = {"id": task_id, "lang": "py"} | ({"task": task} if task else {})
            producer.publish(
                body, exchange=TASKS.name, routing_key=key, headers=headers, correlation_id=task_id, declare=[], **more
            )
            sent[name] = (task_id, reason)

        good = [[], {"number": 9}, {}]
        publish("unknown task", "refused", good, "high_priority.tests.nobody", "tests.nobody")
        publish("no task at all", "refused", good, "high_priority.x", None)
        publish("no queue", "unroutable", good, "lost_priority.tests.sell", "tests.sell")
        publish("another task's key", "refused", good, "high_priority.tests.fail", "tests.sell")
        publish(
            "not JSON", "refused", b"\x80\x04\x95", "high_priority.tests.sell", "tests.sell",
            content_type="application/x-python-serialize", content_encoding="binary", serializer=None,
        )  # fmt: skip
        publish(
            "half of JSON", "refused", b'[[], {"num', "high_priority.tests.sell", "tests.sell",
            content_type="application/json", content_encoding="utf-8", serializer=None,
        )  # fmt: skip
        producer.publish(
            good, exchange=FAILURES.name, routing_key="x", declare=[], headers={"retries": "many", "id": "garbage"}
        )
    return sent


def test_poison(works: Works) -> None:
    """A message that kills whoever takes it is taken so often, and then no more."""
    task_id = works.send(chores.DIE)
    deliveries = 0
    while deliveries < 20 and drop_one(works.platform.broker_url):
        deliveries += 1
    assert deliveries == 7  # the first, and the six the queue allows after it
    works.platform.consuming(works.platform.worker("notify"))
    row = works.until(lambda: works.failed(task_id), "it is known")
    assert (row.reason, row.task, row.payload) == ("poison", "tests.die", {})


def drop_one(url: str) -> bool:
    """Take one message of high_priority and lose the connection; False where there is none for a second."""
    taken: list[Any] = []
    with Connection(url) as connection:
        consumer = Consumer(connection, [Queue(names.HIGH, no_declare=True)], on_message=taken.append, prefetch_count=1)
        consumer.consume()
        try:
            connection.drain_events(timeout=1.5)
        except TimeoutError:
            return False
        connection.transport.close_connection(connection.connection)
        connection.collect()
    return bool(taken)


def test_replayed_it_is_done_once(clerk: Works) -> None:
    """The queue it came from, the same id: an effect that it had after all would not be had twice."""
    task_id = "raw-replayed"
    with Connection(clerk.platform.broker_url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer(serializer="json").publish(
            [[], {"number": 77}, {}], exchange=TASKS.name, routing_key="lost_priority.tests.sell", declare=[],
            headers={"id": task_id, "task": "tests.sell", "lang": "py"}, correlation_id=task_id,
        )  # fmt: skip
    row = clerk.until(lambda: clerk.failed(task_id), "it is known")
    # It came by a key that is not its own: what it says cannot be trusted, and is not kept.
    assert row.payload is None
    sent = clerk.send(chores.STUMBLE, number=1)
    row = clerk.until(lambda: clerk.failed(sent), "it failed")
    with clerk.ledger.write() as session:
        failures.replay(session, row.id, "a test")
    with clerk.ledger.write() as session:
        failures.replay(session, row.id, "a test")
    again = clerk.until(
        lambda: [found for found in _all(clerk) if found.task_id == sent and found.id != row.id], "it failed again"
    )
    assert len(again) == 1
    with clerk.ledger.read() as session:
        assert [action.action for action in failures.actions(session, row.id)] == ["replayed"]


def _all(works: Works) -> list[Any]:
    with works.ledger.read() as session:
        return list(failures.page(session, limit=1000, state=None))


def test_the_database_away_nothing_is_lost(works: Works) -> None:
    """What fails while nobody can note it waits in the queue."""
    works.platform.consuming(works.platform.worker("fast"))
    sent = [works.send(chores.FAIL, number=number, code="x") for number in range(20)]
    with Connection(works.platform.broker_url, transport_options={"confirm_publish": True}) as connection:
        channel: Any = connection.channel()

        def waiting() -> bool:
            # A confirmation that got lost has one there twice.
            return bool(channel.queue_declare(names.FAILED, passive=True).message_count >= 20)

        works.until(waiting, "they wait")
    works.platform.consuming(works.platform.worker("notify"))
    works.until(lambda: len(_all(works)) == 20, "they are noted")
    assert {row.task_id for row in _all(works)} == set(sent)
