"""`tests.integration.test_ledger_races`, on PostgreSQL."""

from tests.integration.test_ledger_races import *  # noqa: F403
