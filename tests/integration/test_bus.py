"""The base task's policy, on real workers: retries, final failures, deadlines, cancellation, secrets, metrics."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from kombu.transport.memory import Channel
from prometheus_client import REGISTRY
from pydantic import SecretStr

from control.bus import names, outcome
from control.bus.broadcast import broadcast_cancel
from control.bus.cancel import cancellations
from control.bus.embedded import Embedded
from control.bus.messages import Message, Progress
from control.bus.publish import FAILURE, PUBLISHED_AT, send
from control.bus.task import task_of
from control.bus.work import Work
from control.errors import (
    AfterliveError,
    BrokerUnavailable,
    ConfigurationError,
    EncoderBusy,
    InputError,
    OutputRejected,
    StorageUnavailable,
    TransientError,
)
from control.ledger import failures
from control.settings import BusSettings, Settings
from tests.bus import Body, bus, spec_of, until

ANSWERS = (names.PART_DONE, names.PART_FAILED, names.PART_PROGRESS)


class Job(Message):
    """The shape every part's job has."""

    replay_id: str = "rep_1"
    run: int = 1
    part: str = "chunk-00000"
    frames: int = 1


class Made(Message):
    """A result."""

    frames: int


class Heard:
    """What media tasks answered: bodies for the tasks they answer to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def bodies(self) -> list[tuple[Any, Callable[..., None]]]:
        return [(spec, self._body(spec.name)) for spec in ANSWERS]

    def _body(self, name: str) -> Callable[..., None]:
        def hear(**payload: Any) -> None:
            self.calls.append((name, payload))

        return hear

    def to(self, spec: names.TaskSpec) -> list[dict[str, Any]]:
        return [payload for name, payload in list(self.calls) if name == spec.name]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def work_spec(**changes: Any) -> names.TaskSpec:
    defaults: dict[str, Any] = {"name": "tests.part", "queue": names.LOW, "reports_to_replay": True}
    return spec_of(**(defaults | changes))


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- answers ----------------------------------------------------------------------------------------------------------


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


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "tries", "code"),
    [
        (OutputRejected(key="k", reason="r"), 3, "output-rejected"),  # may pass
        (InputError(source="a.mp4", reason="r"), 1, "recording-unusable"),  # will not
        (ZeroDivisionError("a secret path"), 3, "internal-error"),  # nobody foresaw it: may pass
        (SystemExit(3), 3, "internal-error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_failures(settings: Settings, heard: Heard, error: BaseException, tries: int, code: str) -> None:
    attempts: list[float] = []

    def body(job: Job) -> Made:
        attempts.append(time.monotonic())
        raise error

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: heard.calls, "the failure is told")
        time.sleep(0.1)
    assert len(attempts) == tries
    (told,) = heard.to(names.PART_FAILED)
    assert told["problem"]["code"] == code
    assert "a secret path" not in told["problem"]["detail"]
    # Waits are whole seconds, one at least: quorum queues know none shorter.
    assert all(later - earlier >= 0.9 for earlier, later in pairwise(attempts))


def test_it_succeeds_at_the_second_try(settings: Settings, heard: Heard) -> None:
    attempts: list[int] = []

    def body(job: Job) -> Made:
        attempts.append(1)
        if len(attempts) == 1:
            raise TransientError(reason="a hiccup")
        return Made(frames=job.frames)

    spec = work_spec()
    before = metric("afterlive_task_retries_total", task=spec.name, code="transient-error")
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: heard.to(names.PART_DONE), "the answer")
    assert len(attempts) == 2
    assert heard.to(names.PART_FAILED) == []
    assert metric("afterlive_task_retries_total", task=spec.name, code="transient-error") == before + 1


def test_a_task_that_takes_too_long_gives_up_by_itself(settings: Settings, heard: Heard) -> None:
    def body(job: Job, work: Work) -> Made:
        while True:
            work.check()
            time.sleep(0.01)

    spec = work_spec(soft_seconds=0.3, retry=names.Retry(times=0))
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        (told,) = until(lambda: heard.to(names.PART_FAILED), "the deadline", seconds=5)
    assert told["problem"]["code"] == "deadline-exceeded"


def test_who_gives_up_can_clean_up(settings: Settings) -> None:
    gave_up: list[tuple[dict[str, Any], BaseException]] = []

    def body(number: int) -> None:
        raise InputError(source=str(number), reason="r")

    spec = spec_of()
    running = Embedded(settings, ())
    task_of(running.app, spec, body, gave_up=lambda payload, error: gave_up.append((payload, error)))
    with running:
        send(running.app, spec, {"number": 7})
        until(lambda: gave_up, "the call")
    assert gave_up[0][0] == {"number": 7}
    assert isinstance(gave_up[0][1], InputError)


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_cancel_stops_what_runs_and_what_waits(settings: Settings, heard: Heard) -> None:
    started: list[str] = []
    stopped: list[float] = []

    def body(job: Job, work: Work) -> Made:
        started.append(job.replay_id)
        try:
            while job.replay_id == "cancelled":
                work.check()
                time.sleep(0.005)
        finally:
            stopped.append(time.monotonic())
        return Made(frames=1)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        for number in range(5):  # two run, three wait
            send(running.app, spec, {"job": Job(replay_id="cancelled", part=f"chunk-{number:05d}").model_dump()})
        until(lambda: len(started) == 2, "both threads are busy")
        asked = time.monotonic()
        broadcast_cancel(running.app, "cancelled", 1)
        send(running.app, spec, {"job": Job(replay_id="another").model_dump()})
        until(lambda: heard.to(names.PART_DONE), "the next one's turn")
    assert started == ["cancelled", "cancelled", "another"]
    assert max(stopped[:2]) - asked < 5
    assert heard.to(names.PART_FAILED) == []  # cancelled is no failure: nobody is told


def test_a_run_after_the_cancelled_one_is_not_cancelled(settings: Settings, heard: Heard) -> None:
    def body(job: Job, work: Work) -> Made:
        work.check()
        return Made(frames=job.run)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        broadcast_cancel(running.app, "again", 1)
        until(lambda: cancellations.watch("again", 1).is_set(), "the word arrives")
        for run in (1, 2):
            send(running.app, spec, {"job": Job(replay_id="again", run=run).model_dump()})
        until(lambda: heard.calls, "an answer")
    assert [answer["run"] for answer in heard.to(names.PART_DONE)] == [2]


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_in_no_log_and_in_nothing_monitors_see(
    settings: Settings, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[dict[str, Any]] = []
    put = Channel._put

    def spy(self: Channel, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if message["headers"].get("task") == "tests.work":
            headers.append(dict(message["headers"]))
        put(self, queue, message, **kwargs)

    monkeypatch.setattr(Channel, "_put", spy)
    calls: list[str] = []

    def body(code: str, phone: str) -> None:
        calls.append(code)
        if len(calls) < 3:
            raise TransientError(reason=f"the carrier is busy for {phone}")
        raise InputError(source=phone, reason="no such number")

    spec = spec_of(secret=frozenset({"code"}))
    with bus(settings, (spec, body), modules=()) as running:
        send(running.app, spec, {"code": "hunter2-735", "phone": "0912"})
        until(lambda: len(calls) == 3, "all three tries")
        time.sleep(0.2)
    assert set(calls) == {"hunter2-735"}
    tries = [seen for seen in headers if FAILURE not in seen]
    assert len(tries) == 3
    for seen in headers:
        assert "hunter2-735" not in str(seen)
        assert "'code': '***'" in seen["kwargsrepr"]
    stamps = [seen[PUBLISHED_AT] for seen in tries]
    assert len(set(stamps)) == 3  # each publishing has its own time, those of retries too
    assert "hunter2-735" not in log.text


@pytest.mark.parametrize(
    "error", [StorageUnavailable(key="k", reason="away"), EncoderBusy(encoder="h264_nvenc", reason="full")]
)
def test_an_outage_of_the_store_is_no_try_of_the_task(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: AfterliveError
) -> None:
    """Nor is a card that is full; for as long as it may be: after that, what is wrong must be seen to."""
    monkeypatch.setattr(outcome, "_STORE_PAUSE_SECONDS", 0)
    monkeypatch.setattr(outcome, "_BUSY_PAUSE_SECONDS", 0)
    tries: list[int] = []

    def body() -> None:
        tries.append(1)
        if len(tries) < 8:
            raise error

    spec = spec_of()
    with bus(settings, (spec, body), modules=()) as running:
        send(running.app, spec, {})
        until(lambda: len(tries) == 8, "it is back")
        assert _failed(running, "") is None
        monkeypatch.setattr(outcome, "_LONGEST_OUTAGE_SECONDS", 0.0)
        monkeypatch.setattr(outcome, "_LONGEST_BUSY_SECONDS", 0.0)
        monkeypatch.setattr(outcome, "backoff_seconds", lambda _retry, _attempt: 0.0)
        tries.clear()
        task_id = send(running.app, spec, {})
        row = until(lambda: _failed(running, task_id), "it is to be reviewed")
    assert (row.code, row.attempts, len(tries)) == (error.code, 3, 3)


def test_where_messages_are_signed_strangers_are_not_served(settings: Settings) -> None:
    served: list[int] = []
    settings.bus.signing_keys = [SecretStr("a key of the platform's")]
    spec = spec_of(key="number")
    with bus(settings, (spec, lambda number: served.append(number)), modules=()) as running:
        forged = running.app.send_task(
            spec.name, kwargs={"number": 1}, queue=spec.queue, routing_key=spec.routing_key, ignore_result=True
        )
        send(running.app, spec, {"number": 2})
        until(lambda: served, "the genuine one")
        row = until(lambda: _failed(running, str(forged.id)), "the other is to be reviewed")
    assert served == [2]
    assert (row.reason, row.code) == ("refused", "forged")


def _failed(running: Embedded, task_id: str) -> Any:
    with running.ledger.read() as session:
        return next((row for row in failures.page(session, limit=10) if row.task_id == task_id), None)


# --- logs and metrics -------------------------------------------------------------------------------------------------


def test_one_line_a_task(settings: Settings, heard: Heard, log: pytest.LogCaptureFixture) -> None:
    def body(job: Job) -> Made:
        return Made(frames=job.frames)

    spec = work_spec()
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        task_id = send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: heard.calls, "the answer")
    (line,) = [record.getMessage() for record in log.records if f"task={spec.name} " in record.getMessage()]
    for word in (f"id={task_id}", "attempt=1", "outcome=done", "seconds=", "replay_id=rep_1", "part=chunk-00000"):
        assert word in line


def test_metrics(settings: Settings, heard: Heard) -> None:
    release = threading.Event()

    def body(job: Job) -> Made:
        release.wait(10)
        return Made(frames=1)

    spec = work_spec(name="tests.measured")
    with bus(settings, (spec, body), *heard.bodies(), modules=()) as running:
        send(running.app, spec, {"job": Job().model_dump()})
        until(lambda: metric("afterlive_tasks_in_flight", task=spec.name) == 1, "it runs")
        time.sleep(1.5)
        release.set()
        until(lambda: heard.calls, "the answer")
        until(lambda: metric("afterlive_tasks_in_flight", task=spec.name) == 0, "it is over")
    assert metric("afterlive_task_seconds_count", task=spec.name, outcome="done") == 1
    assert metric("afterlive_task_seconds_sum", task=spec.name, outcome="done") >= 1.5
    assert metric("afterlive_queue_latency_seconds_count", queue=names.LOW, task=spec.name) == 1
    assert metric("afterlive_queue_latency_seconds_sum", queue=names.LOW, task=spec.name) < 1.5  # not the run as well


def test_a_wanted_delay_is_not_latency(settings: Settings) -> None:
    done = threading.Event()
    spec = spec_of(name="tests.delayed")
    with bus(settings, (spec, lambda: done.set()), modules=()) as running:
        sent = time.monotonic()
        send(running.app, spec, {}, countdown=2.2)
        until(done.is_set, "its time")
        assert time.monotonic() - sent >= 2.9  # rounded up to whole seconds
    assert metric("afterlive_queue_latency_seconds_sum", queue=names.DEFAULT, task=spec.name) < 2.9


def test_hand_over_takes_less_than_50_milliseconds(settings: Settings) -> None:
    arrived: list[float] = []
    spec = spec_of()
    waits = []
    with bus(settings, (spec, lambda: arrived.append(time.monotonic())), modules=()) as running:
        for number in range(20):
            time.sleep(0.03)  # the worker is idle again
            sent = time.monotonic()
            send(running.app, spec, {})
            until(lambda number=number: len(arrived) > number, "it")  # type: ignore[misc]
            waits.append(arrived[-1] - sent)
    assert sorted(waits)[5] < 0.05  # the machine may have other things to do now and then


# --- the process ------------------------------------------------------------------------------------------------------


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
