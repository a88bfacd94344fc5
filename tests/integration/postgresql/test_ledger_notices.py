"""`tests.unit.test_ledger_notices`, on PostgreSQL."""

from tests.unit.test_ledger_notices import *  # noqa: F403
