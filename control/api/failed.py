"""Tasks that failed finally: to look through, to do again or to put aside, one or many at once."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi import Body as InBody
from pydantic import BaseModel, Field, StrictBool, model_validator

from control.api.actor import actor
from control.api.models import NO_NUL, Body
from control.api.openapi import described
from control.api.paging import After, Limit, link_next
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.errors import Conflict, NotFound
from control.ledger import failures, many, task_views
from control.ledger.many import Outcome
from control.ledger.task_views import FailedDetail, FailedReason, FailedState, FailedView

router = APIRouter(prefix="/failed-tasks", tags=["failed tasks"])
AtHand = Annotated[Services, Depends(services)]
Actor = Annotated[str, Depends(actor)]
_ID = "fail_019a3b5c7d8f2a4b"
FailedId = Annotated[str, Path(description="The failed task's id.", max_length=64, pattern=NO_NUL, examples=[_ID])]
TaskName = Annotated[str | None, Query(max_length=128, pattern=NO_NUL, examples=["media.transcode_chunk"])]
_unknown = NotFound(noun="failed task", key=_ID)
_invalid = RequestInvalid()


class FailedPage(BaseModel):
    """One page of failed tasks, newest first."""

    items: list[FailedView]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")


class Discard(Body):
    """Why nobody will do it again."""

    note: str | None = Field(None, max_length=1000, pattern=NO_NUL, examples=["The order was refunded by hand."])


class Many(Body):
    """Open failed tasks of one kind, or `all` of them."""

    task: str | None = Field(None, max_length=128, pattern=NO_NUL, examples=["media.transcode_chunk"])
    reason: FailedReason | None = None
    all: StrictBool = Field(False, description="Has to be said where neither `task` nor `reason` is.")
    limit: int = Field(100, ge=1, le=many.MOST, description="At most so many, the oldest first.")
    after: str | None = Field(None, max_length=64, pattern=NO_NUL, description="`next` of the answer before.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.task or self.reason or self.all):
            raise ValueError("It names neither a task nor a reason, and does not say all.")
        return self


class DiscardMany(Many):
    """The same, and why nobody will do them again."""

    note: str | None = Field(None, max_length=1000, pattern=NO_NUL)


class ManyAnswer(Outcome):
    """What became of each."""

    next: str | None = Field(None, description="Give it as `after` to go on with those that follow; null: no more do.")


_by_task = {"summary": "Those of one kind", "value": {"task": "media.transcode_chunk", "reason": "poison"}}
_all = {"summary": "All of them", "value": {"all": True, "limit": 1000}}


@router.get("", summary="Failed tasks, newest first", responses=described(_invalid, path="/failed-tasks"))
def index(
    request: Request,
    response: Response,
    at_hand: AtHand,
    limit: Limit = 20,
    after: After = None,
    task: TaskName = None,
    reason: FailedReason | None = None,
    state: FailedState | Literal["all"] = "open",
) -> FailedPage:
    """Those nobody has seen to yet, or those in another state. Pages by key, not by number."""
    wanted = None if state == "all" else state
    with at_hand.ledger.read() as session:
        items, following = task_views.failed_page(
            session, limit=limit, after=after, task=task, reason=reason, state=wanted
        )
    return FailedPage(items=items, next=link_next(request, response, following))


@router.post(
    "/replay", status_code=202, summary="Do many again", responses=described(_invalid, path="/failed-tasks/replay")
)
def replay_many(
    body: Annotated[Many, InBody(openapi_examples={"kind": _by_task, "all": _all})], at_hand: AtHand, by: Actor
) -> ManyAnswer:
    """Each for itself, the oldest first: those that are refused are named, with the reason, and stay as they are."""
    answer = _many(at_hand, body, partial(failures.replay, actor=by))
    at_hand.wake()
    return answer


@router.post("/discard", summary="Put many aside", responses=described(_invalid, path="/failed-tasks/discard"))
def discard_many(
    body: Annotated[DiscardMany, InBody(openapi_examples={"kind": _by_task, "all": _all})], at_hand: AtHand, by: Actor
) -> ManyAnswer:
    """Each for itself, the oldest first. They stay in the ledger."""
    return _many(at_hand, body, partial(failures.discard, actor=by, reason=body.note))


@router.get(
    "/{failed_id}",
    summary="A failed task, with all that is known of it",
    responses=described(_unknown, _invalid, path=f"/failed-tasks/{_ID}"),
)
def show(failed_id: FailedId, at_hand: AtHand) -> FailedDetail:
    """Its arguments (secrets masked), where it failed, and who did what about it."""
    with at_hand.ledger.read() as session:
        return task_views.failed_detail(session, failed_id)


@router.post(
    "/{failed_id}/replay",
    status_code=202,
    summary="Do a failed task again",
    responses=described(
        _unknown,
        _invalid,
        Conflict(reason=f"The failed task {_ID} was discarded."),
        path=f"/failed-tasks/{_ID}/replay",
    ),
)
def replay(failed_id: FailedId, response: Response, at_hand: AtHand, by: Actor) -> FailedView:
    """It goes to its own queue, under its own id. A part of a failed replay is made again with all that is missing of
    it. Replaying twice is the same as once; one that fails again is another failed task."""
    with at_hand.ledger.write() as session:
        answer = FailedView.model_validate(failures.replay(session, failed_id, by))
    at_hand.wake()
    if answer.replayed_as:
        response.headers["Location"] = f"/tasks/{answer.replayed_as}"
    return answer


@router.post(
    "/{failed_id}/discard",
    summary="Put a failed task aside",
    responses=described(
        _unknown,
        _invalid,
        Conflict(reason=f"The failed task {_ID} was replayed."),
        path=f"/failed-tasks/{_ID}/discard",
    ),
)
def discard(
    failed_id: FailedId,
    at_hand: AtHand,
    by: Actor,
    body: Annotated[
        Discard | None, InBody(openapi_examples={"note": {"value": {"note": "The order was refunded by hand."}}})
    ] = None,
) -> FailedView:
    """It stays in the ledger. Discarding twice is the same as once."""
    with at_hand.ledger.write() as session:
        return FailedView.model_validate(failures.discard(session, failed_id, by, body.note if body else None))


def _many(at_hand: Services, body: Many, act: many.Act) -> ManyAnswer:
    with at_hand.ledger.read() as session:
        ids = many.chosen(session, limit=body.limit + 1, after=body.after, task=body.task, reason=body.reason)
    outcome = many.each(at_hand.ledger, ids[: body.limit], act)
    return ManyAnswer(**outcome.model_dump(), next=ids[body.limit - 1] if len(ids) > body.limit else None)
