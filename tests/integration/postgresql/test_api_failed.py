"""`tests.integration.test_api_failed`, on PostgreSQL."""

from tests.integration.test_api_failed import *  # noqa: F403
