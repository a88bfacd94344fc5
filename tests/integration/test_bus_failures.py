"""The base task's policy where a task fails or is cancelled: tries, limits, final failures."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from control.bus import names, outcome
from control.bus.broadcast import broadcast_cancel
from control.bus.cancel import cancellations
from control.bus.embedded import Embedded
from control.bus.publish import send
from control.bus.task import task_of
from control.bus.work import Work
from control.errors import AfterliveError, EncoderBusy, InputError, OutputRejected, StorageUnavailable, TransientError
from control.settings import Settings
from tests.bus import bus, spec_of, until
from tests.parts import Heard, Job, Made, failed_task, work_spec


@pytest.fixture
def heard() -> Heard:
    return Heard()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


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
        assert failed_task(running, "") is None
        monkeypatch.setattr(outcome, "_LONGEST_OUTAGE_SECONDS", 0.0)
        monkeypatch.setattr(outcome, "_LONGEST_BUSY_SECONDS", 0.0)
        monkeypatch.setattr(outcome, "backoff_seconds", lambda _retry, _attempt: 0.0)
        tries.clear()
        task_id = send(running.app, spec, {})
        row = until(lambda: failed_task(running, task_id), "it is to be reviewed")
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
        row = until(lambda: failed_task(running, str(forged.id)), "the other is to be reviewed")
    assert served == [2]
    assert (row.reason, row.code) == ("refused", "forged")


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
