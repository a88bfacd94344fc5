"""Tasks by the id of their message, or by what they are about."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from control.api.models import NO_NUL
from control.api.openapi import described
from control.api.problems import RequestInvalid
from control.api.services import Services, services
from control.bus import live
from control.errors import NotFound
from control.ledger import task_views
from control.ledger.task_views import TaskView

router = APIRouter(prefix="/tasks", tags=["tasks"])
AtHand = Annotated[Services, Depends(services)]
_ID = "5b0c3a52-6f0e-4f7e-9d57-0c2f5a0f8a11"


class TaskList(BaseModel):
    """Tasks, newest first."""

    items: list[TaskView]


@router.get("", summary="Tasks by what they are about", responses=described(RequestInvalid(), path="/tasks"))
def index(
    at_hand: AtHand,
    key: Annotated[
        str,
        Query(
            min_length=1,
            max_length=64,
            pattern=NO_NUL,
            description="The business key: a replay's id, an order's number.",
            examples=["rep_01jq"],
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> TaskList:
    """Newest first. Of a key nobody knows there are none."""
    with at_hand.ledger.read() as session:
        found = task_views.known_of_key(session, key, limit)
    return TaskList(items=[task_views.with_live(known, live.look(known.id)) for known in found])


@router.get(
    "/{task_id}",
    summary="A task and how it ended",
    responses=described(NotFound(noun="task", key=_ID), RequestInvalid(), path=f"/tasks/{_ID}"),
)
def show(
    task_id: Annotated[str, Path(description="The id of its message.", max_length=64, pattern=NO_NUL, examples=[_ID])],
    at_hand: AtHand,
) -> TaskView:
    """How it ended, the ledger knows. What it does meanwhile is shown while Redis answers; else it is PENDING until it
    has ended."""
    with at_hand.ledger.read() as session:
        known = task_views.known(session, task_id)
    return task_views.with_live(known, live.look(task_id))
