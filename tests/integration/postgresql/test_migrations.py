"""The schema on PostgreSQL, and what is said where there is none."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from control.ledger.engine import Ledger
from tests.services import free_port
from tests.unit.test_ledger_engine import (  # noqa: F401  (the same tests, with this folder's ledger)
    test_migrations_go_down_and_up_again,
    test_models_and_migrations_agree,
)


def test_check_raises_where_there_is_no_server() -> None:
    with pytest.raises(OperationalError):
        Ledger(f"postgresql+psycopg://afterlive@127.0.0.1:{free_port()}/nowhere").check()
