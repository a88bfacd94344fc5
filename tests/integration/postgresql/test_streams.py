"""`tests.unit.test_ledger_streams`, on PostgreSQL."""

from tests.unit.test_ledger_streams import *  # noqa: F403
