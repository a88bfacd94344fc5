"""Names, routing keys and rights agree with each other, before any broker sees them."""

from __future__ import annotations

import re
import shlex

from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.native_delayed_delivery import calculate_routing_key

from control.bus.names import CATALOGUE, LOW, QUEUES, TaskSpec, routing_key
from control.bus.rights import ANSWERS, RIGHTS, commands
from control.bus.topology import DELAY, FAILURES, QUEUE_SPECS, TASKS, queue_name, without_delay

WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz01_", min_size=1, max_size=8), min_size=1, max_size=40)
SECONDS = st.integers(1, 2**28 - 1)


@given(WORDS, SECONDS)
def test_a_delay_is_taken_off_whatever_the_key_is(words: list[str], seconds: int) -> None:
    key = ".".join(["high_priority", *words])
    assert without_delay(calculate_routing_key(seconds, key)) == key


@given(WORDS)
def test_a_key_without_a_delay_stays(words: list[str]) -> None:
    """Though words of it may look like a delay's bits."""
    key = ".".join(["default", *words])
    assert without_delay(key) == key
    assert without_delay("") == ""


@given(SECONDS, SECONDS)
def test_a_delay_of_what_was_delayed_is_one_delay(first: int, second: int) -> None:
    key = "low_priority.media.transcode_chunk"
    again = calculate_routing_key(second, calculate_routing_key(first, key))
    assert len(again.split(".")) == 28 + len(key.split("."))
    assert without_delay(again) == key


@given(st.sampled_from([spec for spec in CATALOGUE.values() if not spec.name.startswith("tests.")]), SECONDS)
def test_what_a_media_node_may_send(spec: TaskSpec, seconds: int) -> None:
    """By the patterns alone; `tests/integration/rabbitmq/test_rights.py` asks the broker."""
    topics = RIGHTS["media"].topics
    own = spec.queue == LOW
    for key in spec.routing_keys:
        assert bool(re.search(topics[TASKS.name], key)) == (own or spec in ANSWERS)
        delayed = calculate_routing_key(seconds, key)
        assert bool(re.search(topics[DELAY], delayed)) == own
        assert not re.search(topics[DELAY], key)
        assert not re.search(topics[TASKS.name], delayed)
        assert bool(re.search(topics[FAILURES.name], key)) == own


@given(st.sampled_from(QUEUES), WORDS)
def test_a_key_leads_to_one_queue(queue: str, words: list[str]) -> None:
    """Though the name of one starts with that of another."""
    key = routing_key(queue, ".".join(words))
    assert queue_name(key) == queue
    bound = [spec for spec in QUEUE_SPECS if spec.exchange is TASKS]
    assert [spec.name for spec in bound if key.startswith(spec.routing_key.removesuffix("#"))] == [queue]


def test_every_pattern_is_of_the_whole_name() -> None:
    """RabbitMQ searches: a pattern without anchors lets through whatever contains it."""
    for rights in RIGHTS.values():
        for pattern in (rights.configure, rights.write, rights.read, *rights.topics.values()):
            assert pattern == "^$" or re.fullmatch(r"\^.*\(.*\)\$", pattern)


def test_commands_survive_a_shell() -> None:
    for command in commands("a b/c"):
        assert shlex.split(shlex.join(command)) == command
        assert command[1:3] == ["-p", "a b/c"]
