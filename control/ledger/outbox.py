"""Messages decided on together with the facts they follow from; the relay puts them on the bus."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from control.bus.names import CATALOGUE, TaskSpec
from control.ledger import commits
from control.ledger.base import now
from control.ledger.models import OutboxRow


def add(session: Session, spec: TaskSpec, payload: dict[str, Any], *, delay_seconds: float = 0) -> None:
    """Have `spec` sent with `payload` (JSON) once this transaction is committed."""
    if spec.name not in CATALOGUE:
        raise ValueError(f"{spec.name} is not in the catalogue")
    at = now()
    commits.announce(session)
    session.add(
        OutboxRow(task=spec.name, payload=payload, created_at=at, available_at=at + timedelta(seconds=delay_seconds))
    )


def due(session: Session, limit: int) -> Sequence[OutboxRow]:
    """The oldest rows whose time has come."""
    rows = select(OutboxRow).where(OutboxRow.available_at <= now()).order_by(OutboxRow.id).limit(limit)
    return session.scalars(rows).all()


def sent(session: Session, ids: Sequence[int]) -> None:
    """These rows are on the bus."""
    session.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))


def postpone(session: Session, ids: Sequence[int], seconds: float) -> None:
    """These rows are not due before `seconds` from now."""
    session.execute(
        update(OutboxRow).where(OutboxRow.id.in_(ids)).values(available_at=now() + timedelta(seconds=seconds))
    )


def depth(session: Session) -> int:
    """How many rows wait."""
    return session.scalar(select(func.count()).select_from(OutboxRow)) or 0
