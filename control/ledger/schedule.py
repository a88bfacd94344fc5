"""When things last happened by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.ledger.task_models import ScheduleRow


def last_runs(session: Session, names: Sequence[str]) -> dict[str, datetime]:
    """When each last happened, of those that are known."""
    known = session.scalars(select(ScheduleRow).where(ScheduleRow.name.in_(names)))
    return {row.name: row.last_run_at for row in known}


def begin(session: Session, names: Sequence[str], at: datetime) -> dict[str, datetime]:
    """What is new counts from `at`, or from when another Beat met it first."""
    found = {}
    for name in names:
        try:
            with session.begin_nested():
                session.add(ScheduleRow(name=name, last_run_at=at, runs=0))
            found[name] = at
        except IntegrityError:
            found[name] = session.get_one(ScheduleRow, name).last_run_at
    return found


def move(session: Session, name: str, before: datetime, at: datetime) -> bool:
    """It happens at `at`, where it last happened at `before`; False where somebody else had it happen since."""
    mine = update(ScheduleRow).where(ScheduleRow.name == name, ScheduleRow.last_run_at == before)
    values = {"last_run_at": at, "runs": ScheduleRow.runs + 1}
    return bool(session.execute(mine.values(values)).rowcount == 1)  # type: ignore[attr-defined]
