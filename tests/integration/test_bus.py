"""What a task is given, and what it answers, on real workers; the process they run in."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY

from control.bus import names
from control.bus.embedded import Embedded
from control.bus.messages import Progress
from control.bus.publish import send
from control.bus.work import Work
from control.errors import BrokerUnavailable, ConfigurationError
from control.settings import BusSettings, Settings
from tests.bus import Body, bus, spec_of, until
from tests.parts import Heard, Job, Made, work_spec


@pytest.fixture
def heard() -> Heard:
    return Heard()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_result_is_answered_by_name(settings: Settings, heard: Heard) -> None:
    def body(job: Job, work: Work) -> Made:
        assert work.key == "rep_1/chunk-00000"
        return Made(frames=job.frames * 2)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        task_id = send(running.app, spec, {"job": Job(frames=21, run=3).model_dump()})
        until(lambda: heard.calls, "an answer")
    answer = {"replay_id": "rep_1", "run": 3, "part": "chunk-00000", "result": {"frames": 42}, "task_id": task_id}
    assert heard.calls == [(names.PART_DONE.name, answer)]


def test_progress_is_throttled_and_the_last_one_always_comes(settings: Settings, heard: Heard) -> None:
    def body(job: Job, work: Work) -> Made:
        for done in range(1, 101):
            work.report(Progress(done_frames=done, total_frames=100, fps=1.0))
        return Made(frames=job.frames)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: heard.to(names.PART_DONE) and len(heard.to(names.PART_PROGRESS)) == 2, "answers")
    assert [answer["progress"]["done_frames"] for answer in heard.to(names.PART_PROGRESS)] == [1, 100]


def test_what_others_can_begin_with_is_told_under_its_own_name(settings: Settings, heard: Heard) -> None:
    """Of the task's own end it says nothing: that comes with its answer, once."""

    def body(job: Job, work: Work) -> Made:
        work.tell("found", Made(frames=1))
        return Made(frames=2)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        task_id = send(running.app, spec, {"job": Job(run=3).model_dump()})
        until(lambda: len(heard.to(names.PART_DONE)) == 2, "both answers")
    early, last = sorted(heard.to(names.PART_DONE), key=lambda answer: "task_id" in answer)
    assert early == {"replay_id": "rep_1", "run": 3, "part": "found", "result": {"frames": 1}}
    assert (last["part"], last["result"], last["task_id"]) == ("chunk-00000", {"frames": 2}, task_id)


def test_what_cannot_be_told_early_does_not_stop_the_work(
    settings: Settings, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable(reason="nobody answers")

    def body(job: Job, work: Work) -> Made:
        with monkeypatch.context() as patched:
            patched.setattr("control.bus.task.send", away)
            work.tell("found", Made(frames=1))
        return Made(frames=job.frames)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: heard.to(names.PART_DONE), "the answer")
    assert [answer["part"] for answer in heard.to(names.PART_DONE)] == ["chunk-00000"]


def test_progress_nobody_had_time_for_is_dropped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a jam only what is true now is of use."""
    monkeypatch.setattr(names, "PART_PROGRESS", dataclasses.replace(names.PART_PROGRESS, deadline_seconds=0.5))
    go_on = threading.Event()
    heard: list[int] = []

    def jam() -> None:
        go_on.wait(10)

    def hear(progress: dict[str, Any], **_: Any) -> None:
        heard.append(progress["done_frames"])

    def body(job: Job, work: Work) -> Made:
        work.report(Progress(done_frames=job.frames, total_frames=100, fps=1.0))
        return Made(frames=1)

    spec, jammed = work_spec(), spec_of(name="tests.jam")
    bodies: list[Body] = [(spec, body), (jammed, jam), (names.PART_PROGRESS, hear)]
    bodies.append((names.PART_DONE, lambda **_: None))
    with bus(settings, *bodies, modules=()) as running:
        for _ in range(4):
            send(running.app, jammed, {})
        until(lambda: metric("afterlive_tasks_in_flight", task=jammed.name) == 4, "no thread is free")
        send(running.app, spec, {"job": Job(frames=1).model_dump()})
        time.sleep(0.8)
        go_on.set()
        send(running.app, spec, {"job": Job(frames=2).model_dump()})
        until(lambda: heard, "the fresh one")
        time.sleep(0.1)
    assert heard == [2]


def test_a_wrong_payload_is_refused_at_once_and_says_where(settings: Settings, heard: Heard) -> None:
    ran = threading.Event()

    def body(job: Job) -> Made:
        ran.set()
        return Made(frames=job.frames)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump() | {"frames": "many"}})
        send(running.app, spec, {"job": Job().model_dump() | {"surprise": 1}})
        until(lambda: len(heard.calls) == 2, "two answers")
        send(running.app, spec, {"job": {"frames": 1, "surprise": 2}})  # not even whose part it is
        send(running.app, spec, {"job": Job().model_dump()})
        until(ran.is_set, "the worker goes on")
    problems = {answer["problem"]["detail"] for answer in heard.to(names.PART_FAILED)}
    assert len(problems) == 2
    assert any("frames: Input should be a valid integer" in problem for problem in problems)
    assert any("surprise: Extra inputs are not permitted" in problem for problem in problems)
    assert {answer["problem"]["code"] for answer in heard.to(names.PART_FAILED)} == {"payload-invalid"}


def test_plain_functions_take_what_they_name_and_nothing_else(settings: Settings) -> None:
    calls: list[str] = []

    def body(fact: str) -> None:
        calls.append(fact)

    spec = spec_of()
    before = metric("afterlive_task_failures_total", task=spec.name, code="payload-invalid")
    with bus(settings, (spec, body), modules=()) as running:
        send(running.app, spec, {"wrong": "name"})
        send(running.app, spec, {"fact": "right"})
        until(lambda: calls, "the call")
        until(lambda: metric("afterlive_task_failures_total", task=spec.name, code="payload-invalid") > before, "it")
    assert calls == ["right"]
    assert metric("afterlive_task_retries_total", task=spec.name, code="payload-invalid") == 0


def test_it_starts_and_stops_quickly_and_again(settings: Settings, heard: Heard) -> None:
    """Queues of the in-process broker are the process's: nothing of one run may reach the next."""
    started: list[int] = []

    def body(job: Job, work: Work) -> Made:
        started.append(job.run)
        while job.run == 1:
            work.check()
            time.sleep(0.005)
        return Made(frames=1)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        for _ in range(5):
            send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: len(started) == 2, "both threads are busy")
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 4.9  # nothing was given up on
    assert len(started) == 2
    starting = time.monotonic()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        assert time.monotonic() - starting < 10
        send(running.app, spec, {"job": Job(run=2).model_dump()})
        until(lambda: heard.to(names.PART_DONE), "the second run works")
    assert started == [1, 1, 2]


def test_embedded_mode_brings_its_own_broker(settings: Settings) -> None:
    other = settings.model_copy(update={"bus": BusSettings(_env_file=None, broker_url="amqp://localhost//")})
    with pytest.raises(ConfigurationError, match="AFTERLIVE_BUS_BROKER_URL"):
        Embedded(other)


def test_a_start_that_fails_leaves_nothing_running(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Embedded(settings, ())
    before = threading.active_count()

    def broken() -> None:
        raise RuntimeError("no thread")

    monkeypatch.setattr(running.relay, "start", broken)
    with pytest.raises(RuntimeError, match="no thread"):
        running.start()
    until(lambda: threading.active_count() <= before + 1, "threads end")
