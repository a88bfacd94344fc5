"""`tests.unit.test_ledger_nodes`, on PostgreSQL."""

import pytest

from tests.unit.test_ledger_nodes import *  # noqa: F403

pytestmark = pytest.mark.slow
