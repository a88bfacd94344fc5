"""Rows that are written when their transaction ends."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import outbox
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow


def ask(session: Session, fact: str) -> None:
    outbox.add(session, names.ADVANCE_ORDER, {"order_id": "ord_1", "fact": fact})


def asked(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return [row.payload["fact"] for row in session.scalars(select(OutboxRow).order_by(OutboxRow.id))]


def test_rows_of_one_kind_are_one_statement_however_many(ledger: Ledger) -> None:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement.split(" (")[0])

    with ledger.write() as session:
        event.listen(session.connection(), "before_cursor_execute", note)
        for number in range(20):
            ask(session, str(number))
        assert seen == []
    assert seen == ["INSERT INTO tasks", "INSERT INTO outbox"]
    assert asked(ledger) == [str(number) for number in range(20)]


def test_what_is_undone_takes_nothing_with_it(ledger: Ledger) -> None:
    with ledger.write() as session:
        ask(session, "before")
        with session.begin_nested() as here:
            ask(session, "undone")
            here.rollback()
        with session.begin_nested():
            ask(session, "kept")
    assert sorted(asked(ledger)) == ["before", "kept"]


def test_a_transaction_that_fails_writes_nothing(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.write() as session:
            ask(session, "undone")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with ledger.write() as session:
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0
