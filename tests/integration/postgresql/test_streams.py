"""`tests.unit.test_ledger_streams`, on PostgreSQL."""

import pytest

from tests.unit.test_ledger_streams import *  # noqa: F403

pytestmark = pytest.mark.slow
