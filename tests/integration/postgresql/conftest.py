"""The ledger of these tests is PostgreSQL's; all else is that of the tests they repeat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.ledger.engine import Ledger
from tests.services import PostgresqlServer


@pytest.fixture
def ledger(postgresql_server: PostgresqlServer) -> Iterator[Ledger]:
    """An empty ledger in a database of its own."""
    made = Ledger(postgresql_server.migrated())
    yield made
    made.close()
