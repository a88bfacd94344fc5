"""Takes what comes to `failed_tasks` into the ledger, where people review it: nothing stays in the queue but while the
database is away."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from celery import Celery
from kombu import Consumer, Message
from kombu.mixins import ConsumerMixin
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from control.bus import names
from control.bus.failure import Failure
from control.bus.memory import look_up
from control.bus.messages import PartProblem
from control.bus.names import CATALOGUE, FAILED, QUEUES, business_key
from control.bus.publish import FAILURE, PUBLISHED_AT, without_secrets
from control.bus.routing import rung_names
from control.bus.topology import QUEUE_SPECS, queue_name, queue_of, without_delay
from control.ledger import failures, outbox
from control.ledger.engine import Ledger
from control.ledger.task_models import FailedTask

log = logging.getLogger("afterlive.failed")
_PREFETCH: Final = 50
_PAUSE_SECONDS: Final = 1.0
# Of the broker's own dead letters (`x-death`): a message that killed who took it, and one that could not be read.
_REASONS: Final = {"delivery_limit": "poison", "expired": "expired"}
_DETAILS: Final = {
    "poison": "It was delivered as often as it may be and never finished: its workers died, or lost the broker.",
    "expired": "It waited in its queue for longer than it may.",
    "refused": "A worker could not read it, or has no such task.",
    "unroutable": "No queue was bound to its routing key.",
}


class Clerk(ConsumerMixin):
    """A thread that consumes `failed_tasks`."""

    def __init__(self, app: Celery, ledger: Ledger) -> None:
        self.connection = app.connection_for_read().clone()
        self._ledger = ledger
        (spec,) = (spec for spec in QUEUE_SPECS if spec.name == FAILED)
        self._queue = queue_of(spec, app.conf.broker_url)
        self._thread = threading.Thread(target=self.run, name="clerk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        self.should_stop = True
        look_up()  # of the in-process broker; another's has it look each second
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def get_consumers(self, make: Callable[..., Consumer], channel: Any) -> Sequence[Consumer]:  # noqa: ARG002  (kombu's)
        return [make([self._queue], on_message=self._take, prefetch_count=_PREFETCH)]

    def _take(self, message: Message) -> None:
        try:
            with self._ledger.write() as session:
                row = _read(message)
                if failures.note(session, row):
                    log.warning("failed task=%s id=%s reason=%s code=%s", row.task, row.task_id, row.reason, row.code)
                    if problem := _untold(row):
                        outbox.add(session, names.PART_FAILED, problem)
        except Exception as error:  # whatever it is, the message must not be lost, and the others must not wait for it
            away = isinstance(error, SQLAlchemyError)
            log.warning("a failed task goes back to its queue: %s", error, exc_info=not away)
            time.sleep(_PAUSE_SECONDS)
            message.requeue()
        else:
            message.ack()


def _read(message: Message) -> FailedTask:
    try:
        return read(message)
    except Exception as error:  # what strangers send may be anything, and must not come back for ever
        log.warning("a failed task cannot be read", exc_info=True)
        digest = hashlib.sha256(bytes(str(message.headers) + str(message.body), "utf-8", "replace")).hexdigest()
        at = datetime.now(UTC)
        return FailedTask(
            origin=digest, task_id="unknown", task="unknown", queue="unknown", reason="refused", code="unreadable",
            detail=f"It cannot be read: {type(error).__name__}.", attempts=1, failed_at=at,
        )  # fmt: skip


def read(message: Message) -> FailedTask:
    """What a message in `failed_tasks` tells. Whatever it is, it is noted: there is no other place it could go."""
    headers: dict[str, Any] = message.headers or {}
    key = without_delay(str(message.delivery_info.get("routing_key") or ""))
    task = str(headers.get("task") or "unknown")
    task_id = str(headers.get("id") or message.properties.get("correlation_id") or "unknown")
    spec = CATALOGUE.get(task)
    failure = _failure(headers, task_id)
    payload = _payload(message)
    if spec is not None and key not in spec.routing_keys:
        # A node may only tell of its own tasks, and the broker holds it to their routing keys.
        payload = None
        if failure.reason != "unroutable":
            seen = {"reason": "refused", "code": "misaddressed", "detail": f"It came by the routing key {key}."}
            failure = failure.model_copy(update=seen)
    elif spec is not None and payload is not None:
        payload = without_secrets(spec, payload)
    published = headers.get(PUBLISHED_AT)
    about = business_key(spec, payload) if spec and payload else None
    return FailedTask(
        origin=failure.id[:160],
        task_id=task_id[:64],
        task=task[:128],
        queue=queue_name(key)[:128] or "unknown",
        key=about[:64] if about else None,
        # What is not in the catalogue may hold secrets nobody declared.
        payload=payload if spec else None,
        reason=failure.reason,
        code=failure.code,
        detail=failure.detail,
        exception=failure.exception,
        traceback=failure.traceback,
        attempts=failure.attempts,
        published_at=datetime.fromtimestamp(int(published) / 1000, UTC) if published else None,
        failed_at=datetime.fromtimestamp(failure.failed_ms / 1000, UTC),
    )


def _failure(headers: dict[str, Any], task_id: str) -> Failure:
    if FAILURE in headers:
        try:
            return Failure.model_validate(headers[FAILURE])
        except ValidationError:
            log.warning("the failure of %s cannot be read", task_id)
    # Delays expire and are dead-lettered by design: only deaths in our own queues count.
    deaths = [death for death in headers.get("x-death") or () if death.get("queue") in QUEUES]
    reason = _REASONS.get(str(deaths[0].get("reason")), "refused") if deaths else "unroutable"
    attempts = int(headers.get("retries") or 0) + 1
    died = deaths[0].get("time") if deaths else None
    at = died.timestamp() if isinstance(died, datetime) else time.time()
    stamp = f"{at:.0f}" if deaths else str(headers.get(PUBLISHED_AT))
    made: dict[str, Any] = {"reason": reason, "code": reason, "detail": _DETAILS[reason]}
    return Failure(id=f"{task_id}:{reason}:{stamp}", attempts=attempts, failed_ms=round(at * 1000), **made)


def _payload(message: Message) -> dict[str, Any] | None:
    body: Any = message.body
    try:
        found = json.loads(body if isinstance(body, str) else bytes(body))
    except (TypeError, ValueError):
        return None
    # Celery's protocol: positional arguments, keyword arguments, and what belongs to a canvas.
    if isinstance(found, list) and len(found) == 3 and isinstance(found[1], dict):
        return dict(found[1])
    return None


def _untold(row: FailedTask) -> dict[str, Any] | None:
    """What a part's replay must be told, where its worker could not: the payload of `pipelines.part_failed`."""
    spec, job = CATALOGUE.get(row.task), (row.payload or {}).get("job")
    if spec is None or not spec.reports_to_replay or row.reason not in ("poison", "unroutable", "expired"):
        return None
    if not isinstance(job, dict) or not {"replay_id", "part"} <= job.keys():
        return None
    told = PartProblem(code=row.code, detail=row.detail, rungs=rung_names(row.payload or {}))
    problem = told.model_dump(mode="json", exclude_none=True)
    return {"replay_id": job["replay_id"], "run": job.get("run", 1), "part": job["part"], "problem": problem}
