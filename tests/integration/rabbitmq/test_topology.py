"""`afterlive topology`: on an empty broker, on one that has it all, and on one that has another version's queues."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import amqp
import pytest
from kombu import Connection
from kombu.transport.native_delayed_delivery import calculate_routing_key

from control.bus import names
from control.bus.declare import declare, missing
from control.bus.publish import Outgoing, publisher_of, send
from control.bus.topology import (
    BROADCASTS,
    DELAY,
    EXCHANGES,
    FAILURES,
    QUEUE_SPECS,
    TASKS,
    QueueSpec,
    without_delay,
)
from control.errors import Conflict, MessageRefused
from tests import brokers, services
from tests.integration.rabbitmq.wire import (
    app_on,
    channel,
    depth,
    headers_of,
    key_of,
    publish,
    put,
    take,
    took,
)

ALL = [spec.name for spec in QUEUE_SPECS]
(HIGH,) = (spec for spec in QUEUE_SPECS if spec.name == names.HIGH)
ASIDE = f"{names.HIGH}.aside"
KEY = names.HANDLE_FACT.routing_key
KEY_HIGH = f"{names.HIGH}.tests.work"


@pytest.fixture
def empty_url(rabbitmq: brokers.RabbitMQ) -> Iterator[str]:
    """A virtual host with nothing in it."""
    url = rabbitmq.vhost(topology=False)
    yield url
    rabbitmq.forget(url)


def other_version(spec: QueueSpec = HIGH, **arguments: Any) -> list[QueueSpec]:
    """The table, with other arguments for one queue."""
    changed = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    return [replace(one, arguments=one.arguments | changed) if one is spec else one for one in QUEUE_SPECS]


def declared(url: str, specs: Any = QUEUE_SPECS) -> list[str]:
    with Connection(url) as connection:
        return declare(connection, specs)


def seen(broker: brokers.RabbitMQ, url: str) -> list[str]:
    """All that can be declared, as the broker lists it."""
    vhost = url.rpartition("/")[2]
    expression = (
        f'V = <<"{vhost}">>, '
        "lists:sort([{exchange, element(4, element(2, E)), element(3, E), element(8, E)} "
        "|| E <- rabbit_exchange:list(V)] ++ "
        "[{queue, element(4, amqqueue:get_name(Q)), amqqueue:get_arguments(Q)} || Q <- rabbit_amqqueue:list(V)] ++ "
        "rabbit_binding:list(V))."
    )
    return broker.ctl("eval", expression).replace(vhost, "V").splitlines()


# --- declaring --------------------------------------------------------------------------------------------------------


def test_on_an_empty_broker_and_again(rabbitmq: brokers.RabbitMQ, empty_url: str) -> None:
    with Connection(empty_url) as connection:
        assert missing(connection) == ALL
        lines = declare(connection)
        assert missing(connection) == []
    assert lines == [
        *(f"exchange {exchange.name} ({exchange.type})" for exchange in EXCHANGES),
        "delays   28 exchanges and queues",
        *(f"queue    {name}" for name in ALL),
    ]
    before = seen(rabbitmq, empty_url)
    assert sum("celery_delayed" in line for line in before) > 28
    assert declared(empty_url) == lines
    assert seen(rabbitmq, empty_url) == before


def test_what_is_missing_is_made(broker_url: str) -> None:
    with channel(broker_url) as made:
        made.queue_delete(names.LOW)
    with Connection(broker_url) as connection:
        assert missing(connection) == [names.LOW]
        declare(connection)
        assert missing(connection) == []
    put(broker_url, TASKS.name, names.TRANSCODE_CHUNK.routing_key)
    assert len(take(broker_url, names.LOW, 1)) == 1


# --- another version's queues -----------------------------------------------------------------------------------------


def fill(url: str, number: int) -> list[tuple[str, dict[str, Any], bytes]]:
    """Messages as different as they come; how they must arrive."""
    sent = []
    with channel(url) as made:
        for count in range(number):
            key = f"{names.HIGH}.tests.number{count}"
            if count % 5 == 4:
                key = calculate_routing_key(1, key)  # as one that was delayed
            headers = {"number": count, "text": "é", "nested": {"list": [1, "two", None]}}
            body = bytes([count % 256, 0, 255]) if count % 2 else "ü".encode()
            message = amqp.Message(body, application_headers=headers, correlation_id=str(count), delivery_mode=2)
            made.basic_publish_confirm(message, TASKS.name, key)
            sent.append((key, headers, body))
    return sent


def arrived(messages: list[Any]) -> list[tuple[str, dict[str, Any], bytes]]:
    bodies = [message.body.encode() if isinstance(message.body, str) else bytes(message.body) for message in messages]
    found = []
    for one, body in zip(messages, bodies, strict=True):
        headers = headers_of(one)
        assert headers.pop("x-delivery-count", 0) == 0  # the broker's own
        found.append((key_of(one), headers, body))
    return found


def test_a_queue_with_other_arguments_is_made_anew_with_its_messages(
    rabbitmq: brokers.RabbitMQ, empty_url: str, broker_url: str
) -> None:
    declared(empty_url, other_version(delivery_limit=3, max_length=5000))
    put(empty_url, TASKS.name, KEY)
    sent = fill(empty_url, 120)

    lines = declared(empty_url)
    assert f"queue    {names.HIGH}: made anew, 120 messages moved" in lines
    assert f"queue    {names.DEFAULT}" in lines
    # As on a broker that never had another: nothing else is there, and all is bound.
    assert seen(rabbitmq, empty_url) == seen(rabbitmq, broker_url)
    assert depth(empty_url, names.DEFAULT) == 1
    messages = take(empty_url, names.HIGH, 120)
    assert arrived(messages) == sent
    assert {message.properties["delivery_mode"] for message in messages} == {2}
    assert [message.properties["correlation_id"] for message in messages] == [str(count) for count in range(120)]
    assert declared(empty_url) == [line.partition(": made")[0] for line in lines]


def test_a_queue_of_another_kind_too(empty_url: str) -> None:
    """Before it was replicated, say."""
    with channel(empty_url) as made:
        made.queue_declare(names.HIGH, durable=True, auto_delete=False)
        publish(made, "", names.HIGH, "old")
    assert f"queue    {names.HIGH}: made anew, 1 messages moved" in declared(empty_url)
    assert take(empty_url, names.HIGH, 1)[0].body == "old"


def test_a_message_that_names_its_user_moves(rabbitmq: brokers.RabbitMQ, empty_url: str) -> None:
    """The broker lets nobody else tell that name: it must not hold up a migration for ever."""
    declared(empty_url, other_version(delivery_limit=3))
    users = rabbitmq.users(empty_url)
    put(users["fast"], TASKS.name, f"{names.HIGH}.x", user_id="afterlive-fast")
    declared(empty_url)
    assert len(take(empty_url, names.HIGH, 1)) == 1


@pytest.mark.parametrize(
    "stage", ["both are bound", "the old one is empty", "the old one is gone", "the new one is there"]
)
def test_an_interrupted_migration_is_finished(rabbitmq: brokers.RabbitMQ, empty_url: str, stage: str) -> None:
    """Wherever it was interrupted: each message is in one of the two queues."""
    declared(empty_url, other_version(delivery_limit=3))
    with channel(empty_url) as made:
        for key in (HIGH.routing_key, "*." * 28 + HIGH.routing_key):
            made.queue_declare(ASIDE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            made.queue_bind(ASIDE, TASKS.name, key)
            if stage != "both are bound":
                made.queue_unbind(names.HIGH, TASKS.name, key)
        made.exchange_declare(f"{ASIDE}.from.{names.HIGH}", "fanout", durable=False, auto_delete=True)
        made.queue_bind(ASIDE, f"{ASIDE}.from.{names.HIGH}")
        publish(made, "" if stage == "both are bound" else TASKS.name, ASIDE if stage == "both are bound" else KEY_HIGH)
        number = 1
        if stage in ("the old one is gone", "the new one is there"):
            made.queue_delete(names.HIGH)
        if stage == "both are bound":
            publish(made, "", names.HIGH)
            number = 2
        if stage == "the new one is there":
            made.queue_declare(names.HIGH, durable=True, auto_delete=False, arguments=HIGH.arguments)
            made.queue_bind(names.HIGH, TASKS.name, HIGH.routing_key)

    assert f"queue    {names.HIGH}: made anew, {number} messages moved" in declared(empty_url)
    assert depth(empty_url, ASIDE) is None
    assert depth(empty_url, names.HIGH) == number
    assert not [line for line in seen(rabbitmq, empty_url) if ".from." in line or "aside" in line]
    put(empty_url, TASKS.name, KEY_HIGH)
    assert len(take(empty_url, names.HIGH, number + 1)) == number + 1


def test_a_queue_that_is_consumed_is_left_alone_and_so_is_all_else(rabbitmq: brokers.RabbitMQ, empty_url: str) -> None:
    """What a worker holds would be lost with the queue."""
    low = next(spec for spec in QUEUE_SPECS if spec.name == names.LOW)
    declared(empty_url, other_version(low, delivery_limit=3))
    specs = [replace(spec, arguments=spec.arguments | {"x-delivery-limit": 9}) for spec in QUEUE_SPECS]
    put(empty_url, TASKS.name, names.TRANSCODE_CHUNK.routing_key)
    before = seen(rabbitmq, empty_url)
    with channel(empty_url) as worker:
        worker.basic_qos(0, 1, False)
        worker.basic_consume(names.LOW, callback=lambda _: None)
        with pytest.raises(Conflict, match=r"low_priority \(1 consumers\).*Stop their workers"):
            declared(empty_url, specs)
        assert seen(rabbitmq, empty_url) == before
    # It gave back what it held.
    assert f"queue    {names.LOW}: made anew, 1 messages moved" in declared(empty_url, specs)
    assert len(take(empty_url, names.LOW, 1)) == 1


def test_a_new_queue_that_is_too_small_loses_nothing(empty_url: str) -> None:
    declared(empty_url, other_version(delivery_limit=3))
    sent = fill(empty_url, 30)
    with pytest.raises(Conflict, match=f"{names.HIGH} is full.*{ASIDE}"):
        declared(empty_url, other_version(max_length=10))
    waits = (depth(empty_url, names.HIGH) or 0) + (depth(empty_url, ASIDE) or 0)
    assert waits == 30
    declared(empty_url)
    assert depth(empty_url, ASIDE) is None
    assert sorted(arrived(take(empty_url, names.HIGH, 30)), key=lambda one: one[1]["number"]) == sent


# --- delays -----------------------------------------------------------------------------------------------------------


def test_delays_arrive_in_time_with_their_routing_key(broker_url: str) -> None:
    with app_on(broker_url) as app:
        started = time.monotonic()
        for spec, seconds in ((names.TRANSCODE_CHUNK, 3), (names.HANDLE_FACT, 1)):
            send(app, spec, {"seconds": seconds}, countdown=seconds)
        assert depth(broker_url, names.DEFAULT) == depth(broker_url, names.LOW) == 0
        (first,) = take(broker_url, names.DEFAULT, 1)
        assert 1.0 <= took(started) < 2.5
        (second,) = take(broker_url, names.LOW, 1)
        assert 3.0 <= took(started) < 4.5
    assert key_of(first) != names.HANDLE_FACT.routing_key
    assert without_delay(key_of(first)) == names.HANDLE_FACT.routing_key
    assert without_delay(key_of(second)) == names.TRANSCODE_CHUNK.routing_key


def test_a_delay_outlives_a_migration(empty_url: str) -> None:
    """It is on its way while its queue is made anew."""
    declared(empty_url, other_version(delivery_limit=3))
    put(empty_url, DELAY, calculate_routing_key(2, KEY_HIGH))
    declared(empty_url)
    (message,) = take(empty_url, names.HIGH, 1)
    assert without_delay(key_of(message)) == KEY_HIGH


# --- what finds no place ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["nobody.knows", "highpriority.x", calculate_routing_key(1, "nobody.knows")])
def test_what_no_queue_takes_is_reviewed(broker_url: str, key: str) -> None:
    put(broker_url, TASKS.name, key, "lost")
    (message,) = take(broker_url, names.FAILED, 1)
    assert (message.body, key_of(message)) == ("lost", key)


def test_what_is_rejected_is_reviewed(broker_url: str) -> None:
    put(broker_url, TASKS.name, KEY, "bad")
    with channel(broker_url) as made:
        made.basic_reject(made.basic_get(names.DEFAULT).delivery_tag, requeue=False)
    (message,) = take(broker_url, names.FAILED, 1)
    assert (message.body, key_of(message)) == ("bad", KEY)
    assert headers_of(message)["x-death"][0]["reason"] == "rejected"


def test_what_is_given_back_too_often_is_reviewed(broker_url: str) -> None:
    """Whoever took it died of it, each time."""
    put(broker_url, TASKS.name, KEY, "poison")
    deliveries = 0
    with channel(broker_url) as made:
        while (message := made.basic_get(names.DEFAULT)) is not None:
            deliveries += 1
            made.basic_reject(message.delivery_tag, requeue=True)
    (message,) = take(broker_url, names.FAILED, 1)
    assert headers_of(message)["x-death"][0]["reason"] == "delivery_limit"
    assert deliveries == 7


def test_a_full_queue_refuses_and_the_publisher_says_so(empty_url: str) -> None:
    declared(empty_url, other_version(max_length=5))
    spec = replace(names.HANDLE_FACT, queue=names.HIGH)
    with app_on(empty_url) as app:
        # It counts a little behind: what is on its way is still taken.
        taken, problem = 0, None
        while problem is None and taken < 1000:
            (problem,) = publisher_of(app).publish([Outgoing(spec, {})])
            taken += problem is None
        assert isinstance(problem, MessageRefused)
        assert f"{names.HIGH} refused it: it is full" in problem.detail
        assert depth(empty_url, names.HIGH) == taken >= 5
        # Other queues take theirs, and this one does once there is room.
        send(app, names.HANDLE_FACT, {})
        take(empty_url, names.HIGH, taken)
        send(app, spec, {}, patience_seconds=5)


# --- the command ------------------------------------------------------------------------------------------------------


def afterlive(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(services.tool("afterlive")), "topology", *arguments],
        env={"PATH": "/usr/bin:/bin", "AFTERLIVE_BUS_BROKER_URL": url},
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command(rabbitmq: brokers.RabbitMQ, empty_url: str, tmp_path: Path) -> None:
    """With the least rights: those of `afterlive-topology`."""
    url = rabbitmq.users(empty_url)["topology"]
    declared(empty_url, other_version(delivery_limit=3))
    fill(empty_url, 3)
    done = afterlive(tmp_path, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("queue")] == [
        f"queue    {names.HIGH}: made anew, 3 messages moved", *(f"queue    {name}" for name in ALL[1:]),
    ]  # fmt: skip
    assert afterlive(tmp_path, url).stdout == done.stdout.replace(": made anew, 3 messages moved", "")


def test_what_is_wrong_is_said_in_one_line(rabbitmq: brokers.RabbitMQ, empty_url: str, tmp_path: Path) -> None:
    vhost = empty_url.rpartition("/")[2]
    away = f"amqp://guest:hunter2@127.0.0.1:{services.free_port()}/{vhost}"
    password = rabbitmq.url(vhost).replace("guest:guest", "guest:hunter2")
    nobody = rabbitmq.users(empty_url)["api"]
    elsewhere = rabbitmq.url("no-such-vhost")
    with channel(empty_url) as made:
        made.exchange_declare(BROADCASTS.name, "direct", durable=True, auto_delete=False)
    for url, words in {
        away: "Connection refused",
        password: "ACCESS_REFUSED",
        nobody: "ACCESS_REFUSED.*afterlive-api",
        elsewhere: "no-such-vhost",
        empty_url: f"PRECONDITION_FAILED.*{BROADCASTS.name}",
    }.items():
        done = afterlive(tmp_path, url)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"afterlive: broker-unavailable: .*{words}.*\n", done.stderr), done.stderr
        assert "hunter2" not in done.stderr
        assert brokers.PASSWORD not in done.stderr


def test_embedded_mode_has_none(tmp_path: Path) -> None:
    done = afterlive(tmp_path, "memory://")
    assert done.returncode == 1
    assert re.fullmatch(
        r"afterlive: configuration-error: .*AFTERLIVE_BUS_BROKER_URL.*needs no topology.*\n", done.stderr
    )


def test_a_consumed_queue_is_said_in_one_line(empty_url: str, tmp_path: Path) -> None:
    declared(empty_url, other_version(delivery_limit=3))
    with channel(empty_url) as worker:
        worker.basic_consume(names.HIGH, callback=lambda _: None)
        done = afterlive(tmp_path, empty_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"afterlive: conflict: .*high_priority \(1 consumers\).*\n", done.stderr)


def test_the_rights_it_prints_work_as_they_are(rabbitmq: brokers.RabbitMQ, empty_url: str, tmp_path: Path) -> None:
    """In a shell, and though the virtual host's name is one a shell would take apart."""
    rabbitmq.users(empty_url)  # they must be there
    vhost = f"it's {empty_url.rpartition('/')[2]} $HOME"
    rabbitmq.ctl("add_vhost", vhost)
    done = afterlive(tmp_path, "memory://", "--rights", "--vhost", vhost)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    # Each starts a virtual machine, so one of each kind will do; the others are made by the same hand.
    kinds = {line.split()[1]: line for line in lines}
    assert kinds.keys() == {"set_permissions", "set_topic_permissions"}
    for line in kinds.values():
        environment = rabbitmq._environment() | {"PATH": f"{rabbitmq._tool('rabbitmqctl').parent}:/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-c", line], env=environment, check=True, capture_output=True)
    assert f"afterlive-monitor\t{shlex.split(lines[-1])[-3]}" in rabbitmq.ctl(
        "list_permissions", "-p", vhost, "--quiet"
    )
    assert FAILURES.name in rabbitmq.ctl("list_topic_permissions", "-p", vhost, "--quiet")
    rabbitmq.ctl("delete_vhost", vhost)
