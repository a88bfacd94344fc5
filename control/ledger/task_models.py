"""The tables of the bus: tasks and how they ended, failures to review, and the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base


class TaskRow(Base):
    """One task, by the id of its message: PENDING; SUCCESS, FAILURE, EXPIRED or DISCARDED. The inbox as well: whose
    row is SUCCESS has had its effect."""

    __tablename__ = "tasks"
    __table_args__ = (Index("tasks_by_key", "key", "created_at"), Index("tasks_by_age", "finished_at"))

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    task: Mapped[str] = mapped_column(String(ID_LENGTH))
    queue: Mapped[str] = mapped_column(String(32))
    key: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    """The business key: a replay's id, an order's number."""
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class FailedTask(Base):
    """A task that failed finally, for review: open, replayed or discarded."""

    __tablename__ = "failed_tasks"
    __table_args__ = (Index("failed_tasks_by_state", "state", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    """Sorts by the time it came. One that came twice is one."""
    origin: Mapped[str] = mapped_column(String(160), unique=True)
    """What tells this failure from any other: the failure's own id, or the task's with the time."""
    task_id: Mapped[str] = mapped_column(String(ID_LENGTH), index=True)
    task: Mapped[str] = mapped_column(String(128), index=True)
    queue: Mapped[str] = mapped_column(String(128))
    key: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    payload: Mapped[dict[str, Any] | None]
    """Its arguments, secrets masked; None where they could not be read."""
    reason: Mapped[str] = mapped_column(String(16), index=True)
    """failed, expired, refused, poison or unroutable"""
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str]
    exception: Mapped[str | None] = mapped_column(String(160))
    traceback: Mapped[str | None]
    attempts: Mapped[int]
    published_at: Mapped[datetime | None]
    failed_at: Mapped[datetime]
    received_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16))
    replayed_as: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    """Id of the task that does it again; None where its replay was made again as a whole."""
    notified_at: Mapped[datetime | None]
    """When the administrators were told."""


class FailedTaskAction(Base):
    """Who did what to a failed task. Never changed."""

    __tablename__ = "failed_task_actions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    failed_id: Mapped[str] = mapped_column(ForeignKey("failed_tasks.id"), index=True)
    action: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(160))
    note: Mapped[str | None]
    at: Mapped[datetime]


class ScheduleRow(Base):
    """When something last happened by the clock. Whoever moves it sent it."""

    __tablename__ = "schedule"

    name: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    last_run_at: Mapped[datetime]
    runs: Mapped[int] = mapped_column(default=0)
