"""Many failed tasks, each replayed or discarded in a transaction of its own: one that is refused keeps no other back,
and a long list keeps no other writer waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from control.errors import AfterliveError
from control.ledger.engine import Ledger
from control.ledger.task_models import FailedTask

MOST: Final = 1000
_Query = TypeVar("_Query", bound=Select[Any])
Act = Callable[[Session, str], FailedTask]


class Refused(BaseModel):
    """One that is as it was."""

    id: str = Field(examples=["fail_019a3b5c7d8f2a4b"])
    code: str = Field(examples=["conflict"])
    detail: str = Field(examples=["The failed task fail_019a3b5c7d8f2a4b was discarded."])


class Outcome(BaseModel):
    """What became of each."""

    count: int = Field(description="How many were done")
    done: list[str] = Field(description="Their ids")
    refused: list[Refused]

    def with_more(self, more: Outcome) -> Outcome:
        """Of both."""
        return Outcome(count=self.count + more.count, done=self.done + more.done, refused=self.refused + more.refused)


def chosen(
    session: Session, *, limit: int = MOST, after: str | None = None, task: str | None = None, reason: str | None = None
) -> Sequence[str]:
    """Ids of open failed tasks, oldest first, those newer than `after`."""
    query = _filtered(select(FailedTask.id), task, reason).order_by(FailedTask.id).limit(limit)
    if after:
        query = query.where(FailedTask.id > after)
    return session.scalars(query).all()


def count(session: Session, *, task: str | None = None, reason: str | None = None) -> int:
    """How many are open."""
    return session.scalar(_filtered(select(func.count()).select_from(FailedTask), task, reason)) or 0


def each(ledger: Ledger, ids: Iterable[str], act: Act) -> Outcome:
    """`act` on each, in order."""
    done: list[str] = []
    refused: list[Refused] = []
    for failed_id in ids:
        try:
            with ledger.write() as session:
                act(session, failed_id)
        except AfterliveError as error:
            refused.append(Refused(id=failed_id, code=error.code, detail=error.detail))
        else:
            done.append(failed_id)
    return Outcome(count=len(done), done=done, refused=refused)


def _filtered(query: _Query, task: str | None, reason: str | None) -> _Query:
    query = query.where(FailedTask.state == "open")
    for column, value in ((FailedTask.task, task), (FailedTask.reason, reason)):
        if value:
            query = query.where(column == value)
    return query
