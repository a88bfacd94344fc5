"""`tests.integration.test_api_schema`, on PostgreSQL."""

import pytest

from tests.integration.test_api_schema import *  # noqa: F403

pytestmark = pytest.mark.slow
