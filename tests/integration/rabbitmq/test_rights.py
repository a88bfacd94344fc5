"""Each tier's user may do what its work needs and no more: a node that was taken over is held to its own tasks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection
from kombu.transport.native_delayed_delivery import calculate_routing_key

from control.bus import names
from control.bus.broadcast import broadcast_cancel
from control.bus.declare import declare
from control.bus.names import CATALOGUE, QUEUES, TaskSpec
from control.bus.publish import FAILURE, Announcement, Outgoing, publisher_of, send, send_message
from control.bus.rights import ANSWERS, EVENTS_EXCHANGE, RIGHTS
from control.bus.topology import BROADCASTS, DELAY, DELIVERY, DIRECT, EVENTS, EXCHANGES, FAILURES, TASKS, without_delay
from control.errors import AfterliveError
from control.ledger import failures
from control.ledger.engine import Ledger
from control.ledger.task_models import FailedTask
from tests import brokers, services
from tests.e2e.recordings import make
from tests.integration.rabbitmq.wire import app_on, channel, depth, headers_of, key_of, publish, put, refused, take
from tests.platform import Platform, platform

# Other tests have tasks of their own, which no right is for.
TASKS_OF_OURS = [spec for spec in CATALOGUE.values() if not spec.name.startswith("tests.")]
MEDIA = [spec for spec in TASKS_OF_OURS if spec.queue == names.LOW]
COMMERCE = [spec for spec in TASKS_OF_OURS if spec.queue != names.LOW]
ITS_OWN = {names.LOW, *names.GPU_QUEUES.values()}
WORKERS = ("fast", "notify", "media")
_JOB = {"replay_id": "r1", "run": 1, "part": "p1"}


@pytest.fixture(scope="module")
def vhost_url(rabbitmq: brokers.RabbitMQ) -> Iterator[str]:
    """One for all of the broker's answers: what is allowed is taken away again."""
    url = rabbitmq.vhost()
    yield url
    rabbitmq.forget(url)


@pytest.fixture(scope="module")
def users(rabbitmq: brokers.RabbitMQ, vhost_url: str) -> dict[str, str]:
    return rabbitmq.users(vhost_url)


# --- a media node -----------------------------------------------------------------------------------------------------


def test_media_does_its_work(vhost_url: str, users: dict[str, str]) -> None:
    """As its worker does it: by the product's own publisher."""
    put(vhost_url, TASKS.name, names.TRANSCODE_CHUNK.routing_key)
    with channel(users["media"]) as made:
        made.basic_consume(names.LOW, callback=lambda message: made.basic_ack(message.delivery_tag))
        made.connection.drain_events(timeout=5)
        queue = made.queue_declare("", exclusive=True, auto_delete=True).queue
        made.queue_bind(queue, BROADCASTS.name)
        with app_on(users["notify"]) as notify:
            broadcast_cancel(notify, "r1", 1)
        assert json.loads(made.basic_get(queue, no_ack=True).body) == {"kind": "cancel", "replay_id": "r1", "run": 1}
    with app_on(users["media"]) as app:
        for spec in ANSWERS:
            send(app, spec, {})
        for spec in MEDIA:
            send(app, spec, {"job": _JOB})
            send(app, spec, {"job": _JOB}, countdown=1)
            send_message(app, Outgoing(spec, {}, failure={"id": "x"}))
    answered = take(vhost_url, names.DEFAULT, len(ANSWERS))
    assert [key_of(message) for message in answered] == [spec.routing_key for spec in ANSWERS]
    assert len(take(vhost_url, names.LOW, 2 * len(MEDIA))) == 2 * len(MEDIA)
    told = take(vhost_url, names.FAILED, len(MEDIA))
    assert [headers_of(message)[FAILURE] for message in told] == [{"id": "x"}] * len(MEDIA)


@pytest.mark.parametrize(("family", "queue"), names.GPU_QUEUES.items())
def test_media_does_the_work_of_a_gpu(vhost_url: str, users: dict[str, str], family: str, queue: str) -> None:
    """A chunk's queue is that of the encoder it wants: at once, as the next try, and where it is reviewed."""
    payload = {"job": _JOB | {"rungs": [{"encoder": f"h264_{family}"}]}}
    with app_on(users["media"]) as app:
        send(app, names.TRANSCODE_CHUNK, payload)
        send(app, names.TRANSCODE_CHUNK, payload, countdown=1)
        send_message(app, Outgoing(names.TRANSCODE_CHUNK, payload, failure={"id": "x"}))
    keys = [without_delay(key_of(message)) for message in take(users["media"], queue, 2)]
    assert keys == [f"low_priority-{family}.media.transcode_chunk"] * 2
    assert len(take(vhost_url, names.FAILED, 1)) == 1
    assert depth(vhost_url, names.LOW) == 0


def test_media_reads_nothing_else(users: dict[str, str]) -> None:
    for queue in (names.HIGH, names.DEFAULT, names.FAILED, "celery_delayed_3"):
        refused(users["media"], "basic_consume", queue, callback=print)
        refused(users["media"], "basic_get", queue)
    for exchange in (TASKS.name, FAILURES.name, DELAY, DELIVERY, EVENTS_EXCHANGE, EVENTS.name, DIRECT.name):
        refused(users["media"], "listen", exchange)


def test_media_sends_nothing_else(users: dict[str, str]) -> None:
    media = users["media"]
    for spec in COMMERCE:
        if spec not in ANSWERS:
            refused(media, "publish", TASKS.name, spec.routing_key)
        delayed = calculate_routing_key(1, spec.routing_key)
        refused(media, "publish", DELAY, delayed)
        refused(media, "publish", FAILURES.name, spec.routing_key)
    own = names.TRANSCODE_CHUNK.routing_key
    for exchange, key in (
        (TASKS.name, ""),
        (TASKS.name, "default.pipelines.part_done.more"),
        (TASKS.name, "high_priority.pipelines.part_done"),
        (TASKS.name, "x.default.pipelines.part_done"),
        (TASKS.name, calculate_routing_key(1, own)),
        (DELAY, own),
        (FAILURES.name, "#"),
        ("celery_delayed_26", calculate_routing_key(1, own)),
        (DELIVERY, calculate_routing_key(1, own)),
        (BROADCASTS.name, ""),
        (EVENTS.name, "replay.completed"),
        (DIRECT.name, "x"),
        ("afterlive.pidbox", ""),
        ("", names.LOW),
        ("", names.HIGH),
        ("", names.FAILED),
    ):
        refused(media, "publish", exchange, key)


@pytest.fixture
def control_exchange(vhost_url: str) -> None:
    """As the first worker of commerce declares it."""
    with channel(vhost_url) as made:
        made.exchange_declare("afterlive.pidbox", "fanout", durable=False, auto_delete=False)
        made.exchange_declare("reply.afterlive.pidbox", "direct", durable=False, auto_delete=False)


@pytest.mark.usefixtures("control_exchange")
def test_media_makes_and_breaks_nothing(users: dict[str, str]) -> None:
    """Of an exchange, or a queue, that it could both fill and name the way on from, it could make a way round its
    rights: those are of who publishes, not of what is passed on."""
    media = users["media"]
    for queue in (*QUEUES, names.FAILED):
        refused(media, "queue_delete", queue)
        refused(media, "queue_unbind", queue, TASKS.name, f"{queue}.#")
        refused(media, "queue_bind", queue, BROADCASTS.name)
        if queue not in ITS_OWN:
            refused(media, "queue_purge", queue)
    for name in (exchange.name for exchange in EXCHANGES):
        refused(media, "exchange_delete", name)
        refused(media, "exchange_declare", name, "topic", durable=True, auto_delete=False)
    for name in ("mine", "afterlive.media.pidbox", "afterlive.worker.media.x", "amq.gen-mine", "celeryev"):
        refused(media, "exchange_declare", name, "fanout")
        refused(media, "queue_declare", name)
    for source in (DELIVERY, EVENTS_EXCHANGE, TASKS.name, "amq.fanout", "afterlive.pidbox"):
        for target in (TASKS.name, DELAY, FAILURES.name):
            refused(media, "exchange_bind", target, source, "#")
    # Its queue may pass on what dies in it; but nothing that media writes to ends there.
    for source in (TASKS.name, DELAY, FAILURES.name, EVENTS_EXCHANGE):
        refused(media, "listen", source)


def test_media_reaches_no_other_by_remote_control(vhost_url: str, users: dict[str, str]) -> None:
    """And none reaches it: it hears none."""
    with channel(vhost_url) as made:
        made.exchange_declare("afterlive.pidbox", "fanout", durable=False, auto_delete=False)
        for exchange in ("afterlive.pidbox", "afterlive.media.pidbox"):
            refused(users["media"], "publish", exchange, "")
    with app_on(users["media"]) as app, pytest.raises(Exception, match="ACCESS_REFUSED"):
        app.control.shutdown()


# --- the others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["api", "beat"])
def test_publishers_publish_and_that_is_all(vhost_url: str, users: dict[str, str], tier: str) -> None:
    with app_on(users[tier]) as app:
        send(app, names.HANDLE_FACT, {})
        send(app, names.TRANSCODE_CHUNK, {})
        assert publisher_of(app).announce([Announcement("replay.completed", {})]) == [None]
        with pytest.raises(AfterliveError):
            broadcast_cancel(app, "r1", 1)
    take(vhost_url, names.DEFAULT, 1)
    take(vhost_url, names.LOW, 1)
    for queue in (*QUEUES, names.FAILED):
        refused(users[tier], "basic_get", queue)
        refused(users[tier], "queue_delete", queue)
    for name in (DELAY, FAILURES.name, BROADCASTS.name, ""):
        refused(users[tier], "publish", name, "x")
    refused(users[tier], "queue_declare", "", exclusive=True)


def test_the_tiers_of_commerce_leave_each_others_queues_alone(users: dict[str, str]) -> None:
    reads = {"fast": {names.HIGH}, "notify": {names.DEFAULT, names.FAILED}}
    for tier, own in reads.items():
        for queue in {*QUEUES, names.FAILED} - own:
            refused(users[tier], "basic_get", queue)
        for queue in (*QUEUES, names.FAILED):
            refused(users[tier], "queue_delete", queue)
            refused(users[tier], "publish", "", queue)
    refused(users["fast"], "publish", BROADCASTS.name, "")


def test_none_but_topology_declares(users: dict[str, str]) -> None:
    for tier in RIGHTS.keys() - {"topology"}:
        with Connection(users[tier]) as connection, pytest.raises(Exception, match="ACCESS_REFUSED"):
            declare(connection)


def test_topology_touches_nothing_of_others(users: dict[str, str]) -> None:
    """Where it shares a virtual host."""
    with Connection(users["topology"]) as connection:
        declare(connection)
    refused(users["topology"], "queue_declare", "somebody_elses")
    refused(users["topology"], "publish", "amq.topic", "x")


@pytest.mark.usefixtures("control_exchange")
def test_a_monitor_sees_and_sends_no_task(users: dict[str, str]) -> None:
    with channel(users["monitor"]) as made:
        made.queue_declare("celeryev.me", exclusive=True)
        made.queue_bind("celeryev.me", EVENTS_EXCHANGE, "#")
        publish(made, "afterlive.pidbox", "")
    for name in (TASKS.name, DELAY, FAILURES.name, BROADCASTS.name, ""):
        refused(users["monitor"], "publish", name, names.HIGH)
    for queue in (*QUEUES, names.FAILED):
        refused(users["monitor"], "basic_get", queue)


# --- all of it, at work -----------------------------------------------------------------------------------------------


@pytest.fixture
def tiers(
    tmp_path: Path,
    rabbitmq: brokers.RabbitMQ,
    broker_url: str,
    redis_server: brokers.RedisServer,
    postgresql_server: services.PostgresqlServer,
    s3_server: services.S3Server,
) -> Iterator[tuple[Platform, dict[str, str], Ledger]]:
    """The platform, each process with its own user."""
    users = rabbitmq.users(broker_url)
    ledger = Ledger(postgresql_server.database())
    ledger.upgrade()
    with platform(
        tmp_path, rabbitmq, redis_server, ledger.url, s3_server, broker_url=users["api"]
    ) as running:  # fmt: skip
        yield running, users, ledger
    ledger.close()


def test_a_replay_with_the_least_rights(tiers: tuple[Platform, dict[str, str], Ledger]) -> None:
    """And then what a media node that was taken over could try."""
    running, users, ledger = tiers
    make(running.home / "recordings" / "a.mp4", seconds=6, size="160x90")
    workers = [running.worker(tier, AFTERLIVE_BUS_BROKER_URL=users[tier]) for tier in WORKERS]
    running.beat(AFTERLIVE_BUS_BROKER_URL=users["beat"])
    api = running.api()
    client = running.client(api)
    running.consuming(*workers)
    stream = client.post("/streams", json={"title": "x"}).json()["id"]
    assert client.post(f"/streams/{stream}/end", json={"recording": "a.mp4"}).status_code == 202

    def state() -> bool:
        replay = client.get(f"/streams/{stream}").json()["replay"]
        assert replay["state"] != "failed", replay
        return bool(replay["state"] == "completed")

    running.wait(state, "the replay is complete", *workers)
    for process in running.processes.values():
        for word in ("ACCESS_REFUSED", "Traceback"):
            assert word not in process.said(), process.said()
    with ledger.read() as session:
        assert failures.page(session, limit=10, state=None) == []

    attack(running, users["media"], ledger, workers[1].said)
    assert all(worker.healthy() for worker in workers)
    assert [worker.terminate() for worker in workers] == [0, 0, 0]


def attack(running: Platform, media: str, ledger: Ledger, said: Callable[[], str]) -> None:
    """By the routing key of an answer: another task, in each way that Celery knows of saying so."""
    victim = names.PUBLISH_REPLAY
    payload = {"replay_id": "forged"}
    signature: dict[str, Any] = {
        "task": victim.name, "args": [], "kwargs": payload, "options": {"routing_key": victim.routing_key},
        "subtask_type": None, "immutable": True,
    }  # fmt: skip
    part = {**_JOB, "task_id": "t", "result": {}}
    tries: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
        "its header": (victim.name, [[], payload, {}], {}),
        "its body": (victim.name, [[], payload, {"delivery_info": {"routing_key": victim.routing_key}}], {}),
        "a callback": (names.PART_DONE.name, [[], part, {"callbacks": [signature]}], {}),
        "an errback": (names.PART_DONE.name, [[], part, {"errbacks": [signature]}], {}),
        "a chain": (names.PART_DONE.name, [[], part, {"chain": [signature]}], {}),
        "a chord": (names.PART_DONE.name, [[], part, {"chord": signature}], {}),
        "a header's errback": (names.PART_DONE.name, [[], {}, {}], {"errbacks": [signature]}),
        "a task of Celery's": ("celery.group", [[[signature], "x", "g", []], {}, {}], {}),
        "another of Celery's": ("celery.starmap", [[], {"task": signature, "it": [[]]}, {}], {}),
    }
    sent = {}
    for name, (task, body, headers) in tries.items():
        task_id = f"forged-{uuid.uuid4().hex[:8]}"
        told = {"id": task_id, "task": task, "lang": "py", "root_id": task_id, "argsrepr": "", "kwargsrepr": ""}
        put(
            media, TASKS.name, names.PART_DONE.routing_key, json.dumps(body), told | headers, correlation_id=task_id
        )  # fmt: skip
        sent[name] = task_id
    # RabbitMQ 3 holds publishers to the first of a message's routing keys, and a copy comes by that one too; RabbitMQ 4
    # holds them to each.
    with suppress(AccessRefused):
        put(
            media, TASKS.name, names.PART_DONE.routing_key, json.dumps([[], payload, {}]),
            {"id": "forged-copy", "task": victim.name, "lang": "py", "CC": [victim.routing_key]},
        )  # fmt: skip
        sent["a copy"] = "forged-copy"
    for name, task_id in sent.items():
        row = running.wait(lambda task_id=task_id: _failed(ledger, task_id), f"{name} is reviewed")
        assert isinstance(row, FailedTask)
        assert row.reason == "refused", name
        if row.task == victim.name:
            assert (row.code, row.payload) == ("misaddressed", None), name
    with ledger.read() as session:
        rows = failures.page(session, limit=100, state=None)
        assert {row.task_id for row in rows} == set(sent.values())
    assert not re.search(r"id=forged\S* attempt=", said())  # which is how a task that was begun is told of
    assert "replay_id=forged" not in said()


def _failed(ledger: Ledger, task_id: str) -> FailedTask | None:
    with ledger.read() as session:
        return next((row for row in failures.page(session, limit=100, state=None) if row.task_id == task_id), None)


def test_the_catalogue_names_what_media_may_answer() -> None:
    """A task that a media node sends and may not would wait in its publisher for ever."""
    answers: set[TaskSpec] = set(ANSWERS)
    assert answers == {names.PART_DONE, names.PART_FAILED, names.PART_PROGRESS, names.NODE_REPORT}
    assert not answers & set(MEDIA)
