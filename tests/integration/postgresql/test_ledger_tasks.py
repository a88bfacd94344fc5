"""`tests.unit.test_ledger_tasks`, on PostgreSQL."""

from tests.unit.test_ledger_tasks import *  # noqa: F403
