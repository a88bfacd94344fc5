"""`tests.unit.test_ledger_parts`, on PostgreSQL."""

from tests.unit.test_ledger_parts import *  # noqa: F403
