"""The base task: retries, deadlines, answers, metrics, redaction. A task's own module holds only its work.

    @task(names.TRANSCODE_CHUNK)
    def transcode_chunk(job: ChunkJob, work: Work) -> ChunkResult: ...

A function that takes `job` gets its payload validated into the annotated message; one that takes `work` can report
progress and sees its deadline and cancellation. Others get the payload as keyword arguments.

Of errors, those that say so (and those nobody foresaw) are tried again as the catalogue has it; then, or at once, a
failure is final: a part's replay is told, and `gave_up`, where a task has one, is called.
"""

from __future__ import annotations

import inspect
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NoReturn, get_type_hints

from celery import Celery, Task, shared_task
from celery.exceptions import Reject
from pydantic import BaseModel, ValidationError

from control import telemetry
from control.bus import names
from control.bus.cancel import cancellations
from control.bus.messages import Problem, Progress
from control.bus.names import Retry, TaskSpec
from control.bus.publish import PUBLISHED_AT, masked, send
from control.bus.work import Work
from control.errors import AfterliveError, Cancelled, PayloadInvalid

log = logging.getLogger("afterlive.tasks")
_PROGRESS_EXPIRES_SECONDS: Final = 15
GaveUp = Callable[[dict[str, Any], BaseException], None]


@dataclass(frozen=True)
class _Body:
    spec: TaskSpec
    function: Callable[..., Any]
    signature: inspect.Signature
    job: type[BaseModel] | None
    takes_work: bool
    gave_up: GaveUp | None


class _Task(Task):  # type: ignore[type-arg]
    """Whatever publishes it (a retry, the clock): the time is on the message, and no secret in what monitors see."""

    abstract = True
    spec: TaskSpec

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        options["headers"] = {**(options.get("headers") or {}), PUBLISHED_AT: time.time()}
        options |= {"argsrepr": "()", "kwargsrepr": repr(masked(self.spec, kwargs or {}))}
        return super().apply_async(args, kwargs, **options)


def task(spec: TaskSpec, *, gave_up: GaveUp | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as the catalogue's task `spec`, wherever its module is loaded. The function itself stays
    reachable as `.body`. `gave_up(payload, error)` is called when it failed finally."""
    return lambda function: _register(shared_task, spec, function, gave_up)


def task_of(app: Celery, spec: TaskSpec, function: Callable[..., Any], *, gave_up: GaveUp | None = None) -> Any:
    """As `task`, on one application alone, in place of what it has under that name."""
    app.finalize()
    app.tasks.pop(spec.name, None)
    return _register(partial(app.task, shared=False), spec, function, gave_up)


def _register(decorator: Any, spec: TaskSpec, function: Callable[..., Any], gave_up: GaveUp | None) -> Any:
    signature = inspect.signature(function)
    hints = get_type_hints(function)
    body = _Body(spec, function, signature, hints.get("job"), "work" in signature.parameters, gave_up)

    def run(self: Task[..., Any], **payload: Any) -> None:
        _execute(self, body, payload)

    return decorator(
        bind=True,
        base=_Task,
        name=spec.name,
        spec=spec,
        body=staticmethod(function),
        max_retries=spec.retry.times,
        acks_late=True,
        ignore_result=True,
        typing=False,
    )(run)


def backoff_seconds(retry: Retry, attempt: int) -> float:
    """Wait before try `attempt` + 1: exponential with full jitter, so uniform from 0 to the exponential
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    longest = min(retry.most_seconds, retry.first_seconds * 2.0**attempt)
    return random.uniform(0.0, longest)  # noqa: S311  (spreads load, keeps no secret)


def _execute(self: Task[..., Any], body: _Body, payload: dict[str, Any]) -> None:
    spec = body.spec
    started = time.monotonic()
    _observe_latency(self, spec)
    outcome = "failed"
    telemetry.IN_FLIGHT.labels(spec.name).inc()
    try:
        result = _call(self, body, payload)
        if spec.reports_to_replay:
            _answer(self, payload, names.PART_DONE, result=result.model_dump(mode="json"))
        outcome = "done"
    except Cancelled:
        outcome = "cancelled"
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the one place that decides what becomes of any error)
        if _may_retry(error) and self.request.retries < spec.retry.times:
            outcome = "retry"
            _retry(self, spec, error)
        _fail(self, body, payload, error)
    finally:
        seconds = time.monotonic() - started
        telemetry.IN_FLIGHT.labels(spec.name).dec()
        telemetry.RUN_TIME.labels(spec.name, outcome).observe(seconds)
        _log(self, spec, payload, outcome, seconds)


def _call(self: Task[..., Any], body: _Body, payload: dict[str, Any]) -> Any:
    arguments = payload
    job: Any = None
    if body.job is not None:
        try:
            job = body.job.model_validate(payload.get("job"))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PayloadInvalid(task=body.spec.name, reason=f"{place}: {first['msg']}") from None
        arguments = {"job": job}
    else:
        try:
            body.signature.bind(**payload, **({"work": None} if body.takes_work else {}))
        except TypeError as error:
            raise PayloadInvalid(task=body.spec.name, reason=str(error)) from None
    if body.takes_work:
        arguments = arguments | {"work": _work(self, body.spec, job)}
    return body.function(**arguments)


def _work(self: Task[..., Any], spec: TaskSpec, job: Any) -> Work:
    if not spec.reports_to_replay:
        return Work(spec.name, spec.soft_seconds)
    cancelled = cancellations.watch(job.replay_id, job.run)
    work = Work(
        f"{job.replay_id}/{job.part}",
        spec.soft_seconds,
        cancelled=cancelled,
        reporter=lambda progress: _report(self, job, progress),
    )
    work.check()
    return work


def _report(self: Task[..., Any], job: Any, progress: Progress) -> None:
    payload = {"replay_id": job.replay_id, "run": job.run, "part": job.part, "progress": progress.model_dump()}
    try:
        send(self.app, names.PART_PROGRESS, payload, expires_seconds=_PROGRESS_EXPIRES_SECONDS)
    except Exception as error:  # noqa: BLE001  progress is a courtesy; the work goes on without it
        log.warning("progress of %s/%s was not sent: %s", job.replay_id, job.part, error)


def _answer(self: Task[..., Any], payload: dict[str, Any], spec: TaskSpec, **answer: Any) -> None:
    """Before the message is acknowledged: of a worker that dies in between, both are done again."""
    job = payload["job"]
    send(self.app, spec, {"replay_id": job["replay_id"], "run": job.get("run", 1), "part": job["part"], **answer})


def _may_retry(error: BaseException) -> bool:
    # What is not one of ours was not foreseen; it may well pass.
    return error.retryable if isinstance(error, AfterliveError) else True


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, AfterliveError) else AfterliveError.code


def _retry(self: Task[..., Any], spec: TaskSpec, error: BaseException) -> NoReturn:
    telemetry.RETRIES.labels(spec.name, _code(error)).inc()
    # A delay under a second is an error on quorum queues.
    wait = max(1, math.ceil(backoff_seconds(spec.retry, self.request.retries)))
    log.warning("%s will be tried again in %d s: %s", spec.name, wait, error)
    raise self.retry(countdown=wait)


def _fail(self: Task[..., Any], body: _Body, payload: dict[str, Any], error: BaseException) -> NoReturn:
    spec = body.spec
    telemetry.FAILURES.labels(spec.name, _code(error)).inc()
    if isinstance(error, AfterliveError):
        log.warning("%s failed: %s: %s", spec.name, error.code, error.detail)
    else:
        log.error("%s failed", spec.name, exc_info=error)
    job = payload.get("job")
    if spec.reports_to_replay and isinstance(job, dict) and {"replay_id", "part"} <= job.keys():
        _answer(self, payload, names.PART_FAILED, problem=Problem.of(error).model_dump())
    if body.gave_up:
        body.gave_up(payload, error)
    # Rejected, not requeued: the broker moves it where finally failed work is reviewed.
    raise Reject(str(error), requeue=False) from error


def _observe_latency(self: Task[..., Any], spec: TaskSpec) -> None:
    request = self.request
    published = request.get(PUBLISHED_AT)
    if published:
        due = datetime.fromisoformat(str(request.eta)).timestamp() if request.eta else 0.0
        waited = time.time() - max(float(published), due)
        telemetry.QUEUE_LATENCY.labels(spec.queue, spec.name).observe(max(0.0, waited))


def _log(self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], outcome: str, seconds: float) -> None:
    if spec is names.PART_PROGRESS and outcome == "done":
        return
    shown = masked(spec, payload)
    job = shown.get("job") if isinstance(shown.get("job"), dict) else shown
    about = {name: job[name] for name in ("replay_id", "part", "run", "fact") if isinstance(job, dict) and name in job}
    words = " ".join(f"{key}={value}" for key, value in about.items())
    log.info(
        "task=%s id=%s attempt=%d outcome=%s seconds=%.3f thread=%s %s",
        spec.name, self.request.id, self.request.retries + 1, outcome, seconds, threading.current_thread().name, words,
    )  # fmt: skip
