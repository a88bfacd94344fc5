"""`tests.unit.test_views`, on PostgreSQL."""

from tests.unit.test_views import *  # noqa: F403
