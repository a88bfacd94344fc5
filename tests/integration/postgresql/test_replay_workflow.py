"""`tests.integration.test_replay_workflow` and `test_replay_endings`, on PostgreSQL."""

import pytest

from control.settings import LedgerSettings, Settings
from tests.integration.test_replay_endings import *  # noqa: F403
from tests.integration.test_replay_workflow import *  # noqa: F403
from tests.services import PostgresqlServer

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(settings: Settings, postgresql_server: PostgresqlServer) -> Settings:
    """Embedded settings, but for the ledger."""
    return settings.model_copy(update={"ledger": LedgerSettings(_env_file=None, url=postgresql_server.database())})
