"""`tests.unit.test_ledger_failures`, on PostgreSQL."""

import pytest

from tests.unit.test_ledger_failures import *  # noqa: F403

pytestmark = pytest.mark.slow
