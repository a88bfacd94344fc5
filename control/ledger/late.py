"""Rows that a transaction writes when it ends: those of one statement together, however many they are. Most of what a
small transaction costs is the number of its statements."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Insert, event
from sqlalchemy.orm import Session

_HELD: Final = "afterlive_late"


def insert(session: Session, statement: Insert, row: dict[str, Any]) -> None:
    """Have `row` inserted by `statement`, one that is made once and for all: rows are known by it."""
    if session.in_nested_transaction():
        # It may be undone by itself; what the transaction decided on before it must not be.
        session.flush()
        session.connection().execute(statement, [row])
        return
    held: dict[Insert, list[dict[str, Any]]] = session.info.setdefault(_HELD, {})
    held.setdefault(statement, []).append(row)


@event.listens_for(Session, "before_commit")
def write(session: Session) -> None:
    """Write what this transaction decided on so far, what is new to the session first."""
    session.flush()
    held = session.info.pop(_HELD, None)
    if held:
        connection = session.connection()
        for statement, rows in held.items():
            connection.execute(statement, rows)
