"""The schema on PostgreSQL, and what is said where there is none."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from control.ledger.engine import Ledger, alembic_config
from tests.services import free_port


def test_models_and_migrations_agree(ledger: Ledger) -> None:
    with ledger._writer.begin() as connection:
        command.check(alembic_config(connection))


def test_migrations_go_down_and_up_again(ledger: Ledger) -> None:
    assert ledger.is_current()
    with ledger._writer.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert not ledger.is_current()
    with ledger.read() as session:
        assert inspect(session.connection()).get_table_names() == ["alembic_version"]
    ledger.upgrade()
    ledger.upgrade()  # again changes nothing
    assert ledger.is_current()


def test_check_raises_where_there_is_no_server() -> None:
    with pytest.raises(OperationalError):
        Ledger(f"postgresql+psycopg://afterlive@127.0.0.1:{free_port()}/nowhere").check()
