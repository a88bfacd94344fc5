"""`tests.unit.test_views`, on PostgreSQL."""

import pytest

from tests.unit.test_views import *  # noqa: F403

pytestmark = pytest.mark.slow
