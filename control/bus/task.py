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
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_type_hints

from celery import Celery, Task, shared_task
from celery.exceptions import Ignore
from pydantic import BaseModel, ValidationError

from control import telemetry, tracing
from control.bus import live, names
from control.bus.cancel import cancellations
from control.bus.context import Delivery, working_on
from control.bus.messages import Progress
from control.bus.names import TaskSpec, business_key
from control.bus.outcome import (
    GaveUp,
    again,
    answer,
    bury,
    fail,
    is_outage,
    may_retry,
    put_off,
    retry,
    send_or_keep,
)
from control.bus.publish import (
    DEADLINE,
    PUBLISHED_AT,
    Outgoing,
    masked,
    send,
)
from control.bus.routing import queue_of
from control.bus.signing import SIGNATURE, is_genuine
from control.bus.topology import is_addressed
from control.bus.work import Work
from control.errors import AfterliveError, Cancelled, PayloadInvalid, TaskFailed

log = logging.getLogger("afterlive.tasks")


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
        countdown = math.ceil(options.get("countdown") or 0)
        task_id = options.pop("task_id", None) or str(uuid.uuid4())
        message = Outgoing(self.spec, kwargs or {}, task_id=task_id, delay_seconds=countdown)
        options["headers"] = {**(options.get("headers") or {}), **message.headers(self.app)}
        options["task_id"] = task_id
        return super().apply_async(args, kwargs, **options, **message.shown())


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
    if spec.deadline_seconds is not None:
        telemetry.EXPIRED.labels(spec.name)
    body = _Body(spec, function, signature, hints.get("job"), "work" in signature.parameters, gave_up)

    def run(self: Task[..., Any], *args: Any, **payload: Any) -> Any:
        with tracing.task(spec.name, self.request.get(tracing.HEADER)) as traced:
            return _execute(self, body, args, payload, traced)

    return decorator(
        bind=True,
        base=_Task,
        name=spec.name,
        spec=spec,
        body=staticmethod(function),
        max_retries=spec.retry.times,
        acks_late=True,
        # By then it is in `failed_tasks`, with all that is known of it: more than the broker's dead letters tell.
        acks_on_failure=True,
        ignore_result=True,
        typing=False,
    )(run)


def _execute(
    self: Task[..., Any], body: _Body, args: tuple[Any, ...], payload: dict[str, Any], traced: tracing.Traced
) -> Any:
    spec, request = body.spec, self.request
    task_id = str(request.id)
    queue = queue_of(spec, payload)
    delivery = Delivery(task_id, spec.name, queue, business_key(spec, payload), attempt=(request.retries or 0) + 1)
    started = time.monotonic()
    waited = _observe_latency(self, spec, queue)
    outcome, made = "failed", None
    telemetry.IN_FLIGHT.labels(spec.name).inc()
    try:
        with working_on(delivery):
            live.started(delivery)
            _admit(self, spec, args, payload)
            result = _call(self, body, payload)
            made = result.model_dump(mode="json") if spec.reports_to_replay else None
            if made is not None:
                answer(self, payload, names.PART_DONE, result=made)
        outcome = "done"
        live.done(delivery)
    except Cancelled:
        outcome = "cancelled"
        if cancellations.hands_back:
            outcome = "handed back"
            send_or_keep(self, again(self, spec, payload))
    except _TooLate as error:
        outcome = "expired"
        telemetry.EXPIRED.labels(spec.name).inc()
        if not spec.courtesy:
            bury(self, spec, payload, "expired", error)
        raise Ignore from None
    except _Refused as error:
        # Whoever sent it was not to send it: nobody else is told, and what it says is not kept to be sent again.
        telemetry.FAILURES.labels(spec.name, error.code).inc()
        bury(self, spec, {}, "refused", error)
        raise TaskFailed(task=spec.name, reason=error.detail) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the one place that decides what becomes of any error)
        if is_outage(self, error):
            outcome = "put off"
            put_off(self, spec, payload, error)
        if may_retry(error) and request.retries < spec.retry.times:
            outcome = "retry"
            retry(self, spec, payload, error)
        fail(self, spec, body.gave_up, payload, error)
    finally:
        seconds = time.monotonic() - started
        telemetry.IN_FLIGHT.labels(spec.name).dec()
        telemetry.RUN_TIME.labels(spec.name, outcome).observe(seconds)
        traced.note(task_id=task_id, queue=spec.queue, attempt=delivery.attempt, waited_seconds=waited, outcome=outcome)
        if outcome in ("failed", "expired"):
            traced.failed(outcome)
        _log(self, spec, payload, outcome, waited, seconds)
    return made


class _TooLate(AfterliveError):
    """It came {seconds:.0f} s after its deadline."""

    code = "expired"


class _Refused(AfterliveError):
    """It was refused: {reason}."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(**facts)
        self.code = code  # type: ignore[misc]  # of two kinds of strangers


def _admit(self: Task[..., Any], spec: TaskSpec, args: tuple[Any, ...], payload: dict[str, Any]) -> None:
    """What came the wrong way, or too late, is not done at all."""
    request = self.request
    sent = request.delivery_info or {}
    if sent.get("routing_key") and not is_addressed(spec, sent):
        reason = f"it came by the routing key {sent['routing_key']}, which is not its own"
        raise _Refused(code="misaddressed", reason=reason)
    if not is_genuine(self.app, request.get(SIGNATURE), spec.name, str(request.id), payload):
        raise _Refused(code="forged", reason="its signature is missing or wrong")
    deadline = request.get(DEADLINE)
    if deadline is not None and (late := time.time() - int(deadline) / 1000) > 0:
        raise _TooLate(seconds=late)
    if args:
        raise PayloadInvalid(task=spec.name, reason="it takes keyword arguments alone")


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
        # Nobody cancels it, but the process may end.
        return Work(spec.name, spec.soft_seconds, cancelled=cancellations.watch(str(self.request.id), 1))
    cancelled = cancellations.watch(job.replay_id, job.run)
    work = Work(
        f"{job.replay_id}/{job.part}",
        spec.soft_seconds,
        cancelled=cancelled,
        reporter=lambda progress: _report(self, job, progress),
        teller=lambda name, result: _tell(self, job, name, result),
    )
    work.check()
    return work


def _report(self: Task[..., Any], job: Any, progress: Progress) -> None:
    payload = {"replay_id": job.replay_id, "run": job.run, "part": job.part, "progress": progress.model_dump()}
    live.progress(str(self.request.id), progress.done_frames / max(progress.total_frames, 1))
    try:
        send(self.app, names.PART_PROGRESS, payload)
    except Exception as error:  # noqa: BLE001  progress is a courtesy; the work goes on without it
        log.warning("progress of %s/%s was not sent: %s", job.replay_id, job.part, error)


def _tell(self: Task[..., Any], job: Any, name: str, result: BaseModel) -> None:
    payload = {"replay_id": job.replay_id, "run": job.run, "part": name, "result": result.model_dump(mode="json")}
    try:
        send(self.app, names.PART_DONE, payload)
    except Exception as error:  # noqa: BLE001  the task's own answer says it all once more
        log.warning("%s of %s was not sent: %s", name, job.replay_id, error)


def _observe_latency(self: Task[..., Any], spec: TaskSpec, queue: str) -> float:
    published = self.request.get(PUBLISHED_AT)
    waited = max(0.0, time.time() - int(published) / 1000) if published else 0.0
    if published:
        telemetry.QUEUE_LATENCY.labels(queue, spec.name).observe(waited)
    return waited


def _log(
    self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], outcome: str, waited: float, seconds: float
) -> None:
    if spec.courtesy and outcome in ("done", "expired"):
        return
    shown = masked(spec, payload)
    job = shown.get("job") if isinstance(shown.get("job"), dict) else shown
    about = {name: job[name] for name in ("replay_id", "part", "run", "fact") if isinstance(job, dict) and name in job}
    words = " ".join(f"{key}={value}" for key, value in about.items())
    log.info(
        "task=%s id=%s attempt=%d outcome=%s waited=%.3f seconds=%.3f thread=%s %s",
        spec.name, self.request.id, self.request.retries + 1, outcome.replace(" ", "-"), waited, seconds,
        threading.current_thread().name, words,
    )  # fmt: skip
