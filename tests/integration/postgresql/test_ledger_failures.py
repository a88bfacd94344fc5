"""`tests.unit.test_ledger_failures`, on PostgreSQL."""

from tests.unit.test_ledger_failures import *  # noqa: F403
