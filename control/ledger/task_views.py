"""What the API and the command line show of tasks and of those that failed finally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from control.bus.names import CATALOGUE
from control.errors import NotFound
from control.ledger import failures, tasks
from control.ledger.task_models import FailedTask, TaskRow

TaskState = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "EXPIRED", "DISCARDED"]
FailedState = Literal["open", "replayed", "discarded"]
FailedReason = Literal["failed", "expired", "refused", "poison", "unroutable"]
_LIVE: Final = ("STARTED", "RETRY", "SUCCESS")


class TaskFailure(BaseModel):
    """Why a task has no effect."""

    failed_task_id: str = Field(examples=["fail_019a3b5c7d8f2a4b"])
    reason: FailedReason
    code: str = Field(examples=["encoder-failed"])
    detail: str = Field(examples=["ffmpeg failed on rep_01jq/chunk-00003: it was killed."])
    state: FailedState = Field(description="What was done about it")


class TaskView(BaseModel):
    """A task, and what it does at the moment."""

    id: str
    task: str = Field(examples=["media.transcode_chunk"])
    queue: str | None = Field(examples=["low_priority"])
    key: str | None = Field(description="What it is about: a replay's id, an order's number", examples=["rep_01jq"])
    state: TaskState
    progress: float | None = Field(description="0 to 1; null where it is not known", examples=[0.42])
    attempt: int | None = Field(description="Which try the last one is; null where it is not known", examples=[1])
    created_at: datetime | None
    started_at: datetime | None = Field(description="When its last try began; null where that is not known")
    finished_at: datetime | None
    failure: TaskFailure | None = Field(None, description="Of FAILURE, EXPIRED and DISCARDED alone")


class FailedView(BaseModel):
    """A task that failed finally."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    task_id: str
    task: str = Field(examples=["media.transcode_chunk"])
    queue: str
    key: str | None
    reason: FailedReason
    code: str = Field(examples=["encoder-failed"])
    detail: str
    exception: str | None
    attempts: int
    state: FailedState
    replayed_as: str | None = Field(description="Id of the task that does it again; null where its whole replay does")
    published_at: datetime | None
    failed_at: datetime
    received_at: datetime
    notified_at: datetime | None = Field(description="When the administrators were told")


class ActionView(BaseModel):
    """Who did what to it."""

    model_config = ConfigDict(from_attributes=True)

    action: Literal["replayed", "discarded"]
    actor: str = Field(examples=["key:3f2a9c01 ann"])
    note: str | None
    at: datetime


class FailedDetail(FailedView):
    """The same with all that is known of it."""

    payload: dict[str, Any] | None = Field(description="Its arguments, secrets masked")
    traceback: str | None
    actions: list[ActionView]


@dataclass(frozen=True)
class Known:
    """What the ledger says of a task: nothing, where no view; and when its last failure was noted."""

    id: str
    view: TaskView | None
    failed_at: datetime | None = None


def known(session: Session, task_id: str) -> Known:
    """What the ledger says of one task."""
    failed = failures.last_of(session, [task_id]).get(task_id)
    return _known(task_id, tasks.get(session, task_id), failed)


def known_of_key(session: Session, key: str, limit: int) -> list[Known]:
    """Of the tasks about `key`, newest first."""
    rows = {row.id: row for row in tasks.of_key(session, key, limit)}
    strays = {row.task_id for row in failures.of_key(session, key, limit)} - rows.keys()
    failed = failures.last_of(session, {*rows, *strays})
    # A task that failed may have a row that is older than those of this page.
    rows |= {row.id: row for task_id in strays if (row := tasks.get(session, task_id))}
    found = [_known(task_id, rows.get(task_id), failed.get(task_id)) for task_id in {*rows, *strays}]
    return sorted(found, key=_age, reverse=True)[:limit]


def with_live(known: Known, seen: Mapping[str, str]) -> TaskView:
    """The ledger's word with what `seen` (`control.bus.live.look`) adds to it. Raises NotFound where neither knows."""
    view = known.view
    started_at = datetime.fromtimestamp(float(seen["started_at"]), UTC) if "started_at" in seen else None
    if view is None:
        if started_at is None:
            raise NotFound(noun="task", key=known.id)
        view = _unknown(known.id, seen)
    attempt = int(seen["attempt"]) if "attempt" in seen else None
    if view.state != "PENDING":
        failed = view.failure is not None
        return view.model_copy(update={"started_at": started_at, "attempt": view.attempt if failed else attempt})
    if started_at is None or (known.failed_at and started_at <= known.failed_at):
        return view  # what is seen is how it failed, before it was to be done again
    state = seen.get("state")
    done, runs = state == "SUCCESS", state == "STARTED"
    return view.model_copy(
        update={
            "state": state if state in _LIVE else view.state,
            "attempt": attempt,
            "started_at": started_at,
            "progress": 1.0 if done else float(seen["progress"]) if runs and "progress" in seen else None,
        }
    )


def failed_page(
    session: Session, *, limit: int, after: str | None, task: str | None, reason: str | None, state: str | None
) -> tuple[list[FailedView], str | None]:
    """Newest first, and the id after which the next page begins; None where this is the last."""
    rows = failures.page(session, limit=limit + 1, after=after, task=task, reason=reason, state=state)
    items = [FailedView.model_validate(row) for row in rows[:limit]]
    return items, items[-1].id if len(rows) > limit else None


def failed_detail(session: Session, failed_id: str) -> FailedDetail:
    """Raises NotFound."""
    row = failures.get(session, failed_id)
    actions = [ActionView.model_validate(action) for action in failures.actions(session, failed_id)]
    shown = FailedView.model_validate(row).model_dump()
    return FailedDetail(**shown, payload=row.payload, traceback=row.traceback, actions=actions)


def _known(task_id: str, row: TaskRow | None, failed: FailedTask | None) -> Known:
    if row is None and failed is None:
        return Known(task_id, None)
    state: Any = row.state if row else _state_of(failed)
    about: Any = row or failed
    failure = None
    if failed and state in ("FAILURE", "EXPIRED", "DISCARDED"):
        facts = {name: getattr(failed, name) for name in ("reason", "code", "detail", "state")}
        failure = TaskFailure(failed_task_id=failed.id, **facts)
    finished_at = row.finished_at if row else failed.failed_at if failed and failure else None
    view = TaskView(
        id=task_id,
        task=about.task,
        queue=about.queue,
        key=about.key,
        state=state,
        progress=1.0 if state == "SUCCESS" else None,
        attempt=failed.attempts if failed and failure else None,
        created_at=row.created_at if row else failed.published_at if failed else None,
        started_at=None,
        finished_at=finished_at,
        failure=failure,
    )
    return Known(task_id, view, failed.received_at if failed else None)


def _state_of(failed: FailedTask | None) -> str:
    """Of a task that no outbox sent: it has no row but that of its failure."""
    if failed is None or (failed.state == "replayed" and failed.replayed_as == failed.task_id):
        return "PENDING"
    if failed.state == "discarded":
        return "DISCARDED"
    return "EXPIRED" if failed.reason == "expired" else "FAILURE"


def _unknown(task_id: str, seen: Mapping[str, str]) -> TaskView:
    """One that no outbox sent, and that has not ended."""
    spec = CATALOGUE.get(seen.get("task", ""))
    return TaskView(
        id=task_id,
        task=seen.get("task", ""),
        queue=spec.queue if spec else None,
        key=seen.get("key"),
        state="PENDING",
        progress=None,
        attempt=None,
        created_at=None,
        started_at=None,
        finished_at=None,
    )


def _age(known: Known) -> tuple[datetime, str]:
    shown = known.view
    assert shown is not None  # noqa: S101  (narrows the type: these are found in the ledger)
    return shown.created_at or shown.finished_at or datetime.min.replace(tzinfo=UTC), known.id
