"""What becomes of a task that did not go well: tried again, handed back, told of, reviewed.

Everything here is on the bus before the message it follows from is acknowledged: of a worker that dies in between,
both are done again.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from celery import Task
from celery.exceptions import Reject, Retry

from control import telemetry
from control.bus import live, names
from control.bus.context import node_name
from control.bus.failure import Failure, Reason
from control.bus.messages import PartProblem, Problem
from control.bus.names import TaskSpec
from control.bus.publish import DEADLINE, FIRST, PUBLISHED_AT, Outgoing, scrub, send, send_message, without_secrets
from control.bus.routing import rung_names
from control.errors import AfterliveError, EncoderBusy, EncoderUnavailable, StorageUnavailable, TaskFailed

log = logging.getLogger("afterlive.tasks")
# What a worker made must be told; while the broker is away it waits with it, message in hand.
_PATIENCE_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 2.0
# PostgreSQL's classes of errors that are no fault of a statement: the connection, resources, the operator.
_AWAY: Final = ("08", "53", "57P")
_STORE_PAUSE_SECONDS: Final = 30
_BUSY_PAUSE_SECONDS: Final = 5
_LONGEST_OUTAGE_SECONDS: Final = 3600.0
_LONGEST_BUSY_SECONDS: Final = 24 * 3600.0
GaveUp = Callable[[dict[str, Any], BaseException], None]


def backoff_seconds(retry: names.Retry, attempt: int) -> float:
    """Wait before try `attempt` + 1: exponential with full jitter, so uniform from 0 to the exponential
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    longest = min(retry.most_seconds, retry.first_seconds * 2.0**attempt)
    return random.uniform(0.0, longest)  # noqa: S311  (spreads load, keeps no secret)


def answer(self: Task[..., Any], payload: dict[str, Any], spec: TaskSpec, **answer: Any) -> None:
    """Tell the part's replay."""
    job = payload["job"]
    address = {"replay_id": job["replay_id"], "run": job.get("run", 1), "part": job["part"], "task_id": self.request.id}
    send(self.app, spec, address | answer, patience_seconds=_PATIENCE_SECONDS)


def may_retry(error: BaseException) -> bool:
    # What is not one of ours was not foreseen; it may well pass.
    return error.retryable if isinstance(error, AfterliveError) else True


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, AfterliveError) else AfterliveError.code


def retry(self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], error: BaseException) -> NoReturn:
    telemetry.RETRIES.labels(spec.name, _code(error)).inc()
    # A delay under a second is an error on quorum queues.
    wait = max(1, math.ceil(backoff_seconds(spec.retry, self.request.retries)))
    log.warning("%s will be tried again in %d s: %s", spec.name, wait, scrub(spec, payload, str(error)))
    live.waits(str(self.request.id))
    send_or_keep(self, again(self, spec, payload, wait))
    raise Retry(when=datetime.now(UTC) + timedelta(seconds=wait)) from None


def ledger_is_away(error: BaseException) -> bool:
    """Whether the database was not reached, or broke off: it says nothing of the task that met with it."""
    found: Any = sys.modules.get("sqlalchemy.exc")  # a tier without a ledger has no SQLAlchemy
    if found is None or not isinstance(error, found.OperationalError | found.InterfaceError | found.TimeoutError):
        return False
    if isinstance(error, found.TimeoutError) or getattr(error, "connection_invalidated", False):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", "")  # of SQLite, which is never away, there is none
    return state is None or str(state).startswith(_AWAY)


def put_off(self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], error: BaseException) -> NoReturn:
    """Until the ledger, the object store or a free encoder is back: no try of the task's counts."""
    log.warning("%s is put off: %s", spec.name, scrub(spec, payload, str(error).partition("\n")[0]))
    live.waits(str(self.request.id))
    # What costs much to make is not made again every few seconds, to find the store still away.
    delay = math.ceil(min(max(spec.retry.first_seconds, _PAUSE_SECONDS), _STORE_PAUSE_SECONDS))
    if isinstance(error, EncoderBusy):
        delay = _BUSY_PAUSE_SECONDS
    if ledger_is_away(error):
        delay = 1
        # With the message in hand: those that wait in the queue need not each find out for themselves.
        time.sleep(_PAUSE_SECONDS)
    send_or_keep(self, replace(again(self, spec, payload), delay_seconds=delay))
    raise Retry(when=datetime.now(UTC) + timedelta(seconds=delay)) from None


def is_outage(self: Task[..., Any], error: BaseException) -> bool:
    """Whether what failed is something the task needs, not the task: the ledger, for however long; the object store,
    for an hour, as what looks like an outage there may be a setting that is wrong; a free encoder, for a day, as behind
    a long queue, and never again where another program keeps the card."""
    first = self.request.get(FIRST)
    age = 0.0 if first is None else time.time() - int(first) / 1000
    store = isinstance(error, StorageUnavailable) and age < _LONGEST_OUTAGE_SECONDS
    busy = isinstance(error, EncoderBusy) and age < _LONGEST_BUSY_SECONDS
    return ledger_is_away(error) or store or busy


def again(self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], wait: int | None = None) -> Outgoing:
    """The message once more, as it came; with `wait`, as the next try."""
    request: Any = self.request
    canvas = {
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
    }
    deadline = request.get(DEADLINE)
    return Outgoing(
        spec,
        payload,
        task_id=request.id,
        since=int(deadline) / 1000 - (spec.deadline_seconds or 0) if deadline is not None else time.time(),
        delay_seconds=wait or 0,
        retries=request.retries + (1 if wait is not None else 0),
        canvas={key: value for key, value in canvas.items() if value is not None},
        first_ms=request.get(FIRST),
    )


def fail(
    self: Task[..., Any], spec: TaskSpec, gave_up: GaveUp | None, payload: dict[str, Any], error: BaseException
) -> NoReturn:
    detail = scrub(spec, payload, error.detail if isinstance(error, AfterliveError) else type(error).__name__)
    telemetry.FAILURES.labels(spec.name, _code(error)).inc()
    if isinstance(error, AfterliveError):
        log.warning("%s failed: %s: %s", spec.name, error.code, detail)
    else:
        log.error("%s failed: %s", spec.name, scrub(spec, payload, "".join(traceback.format_exception(error))))
    job = payload.get("job")
    if spec.reports_to_replay and isinstance(job, dict) and {"replay_id", "part"} <= job.keys():
        try:
            answer(
                self,
                payload,
                names.PART_FAILED,
                problem=_problem(payload, error).model_dump(mode="json", exclude_none=True),
            )
        except AfterliveError as unsent:
            _keep(self, unsent)
    if gave_up:
        try:
            gave_up(payload, error)
        except Exception as other:  # what is to be reviewed must get there, whatever else goes wrong
            if ledger_is_away(other):
                put_off(self, spec, payload, other)
            log.exception("%s failed, and what follows from that failed as well", spec.name)
    # A chunk whose encoder cannot be had goes elsewhere, or is planned again: nobody need look at it.
    if not spec.courtesy and not (spec.reports_to_replay and isinstance(error, EncoderUnavailable)):
        bury(self, spec, payload, "failed", error)
    raise TaskFailed(task=spec.name, reason=detail) from None


def _problem(payload: dict[str, Any], error: BaseException) -> PartProblem:
    told = Problem.of(error)
    problem = PartProblem(code=told.code, detail=told.detail, rungs=rung_names(payload))
    if not isinstance(error, EncoderUnavailable):
        return problem
    # As it is called in its reports; the error has the machine's name.
    return problem.model_copy(update={"encoder": error.facts.get("encoder"), "node": node_name()})


def bury(self: Task[..., Any], spec: TaskSpec, payload: dict[str, Any], reason: Reason, error: BaseException) -> None:
    """Where finally failed work is reviewed."""
    failure = Failure.of(reason, spec, payload, error, attempts=self.request.retries + 1)
    message = replace(
        again(self, spec, without_secrets(spec, payload)),
        failure=failure.model_dump(),
        published_ms=self.request.get(PUBLISHED_AT),
        canvas={},
    )
    send_or_keep(self, message)


def send_or_keep(self: Task[..., Any], message: Outgoing) -> None:
    """Give the delivery back where the broker does not take what follows from it."""
    try:
        send_message(self.app, message, _PATIENCE_SECONDS)
    except AfterliveError as error:
        _keep(self, error)


def _keep(self: Task[..., Any], error: AfterliveError) -> NoReturn:
    log.warning("%s %s goes back to its queue: %s", self.name, self.request.id, error.detail)
    raise Reject(error.detail, requeue=True) from None
