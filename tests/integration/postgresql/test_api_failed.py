"""`tests.integration.test_api_failed`, on PostgreSQL."""

import pytest

from tests.integration.test_api_failed import *  # noqa: F403

pytestmark = pytest.mark.slow
