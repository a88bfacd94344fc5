"""What tests share. Nothing of the machine's own configuration reaches a test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from pydantic import SecretStr

from control import secret_files
from control import settings as settings_module
from control.settings import ApiSettings, BusSettings, LedgerSettings, MediaSettings, Settings, StorageSettings
from control.storage import LocalStore, ObjectStore, open_store
from tests import brokers, services

if TYPE_CHECKING:
    from control.ledger.engine import Ledger

API_KEY = "key-for-tests"
# How long an example takes is the machine's affair, not the code's.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in a shell's background: what tests start would be deaf to Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the developer's shell counts, and no test's settings outlive it."""
    for name in [name for name in os.environ if name.startswith("AFTERLIVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(secret_files.SYSTEMD, raising=False)
    monkeypatch.setattr(secret_files, "DOCKERS", Path("/nowhere"))
    yield
    settings_module._current = None


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded settings with every path in `tmp_path`; the settings in use while the test runs."""
    recordings = tmp_path / "recordings"
    scratch = tmp_path / "scratch"
    recordings.mkdir()
    scratch.mkdir()
    made = Settings(
        _env_file=None,
        ledger=LedgerSettings(_env_file=None, url=f"sqlite:///{tmp_path / 'ledger.sqlite'}"),
        bus=BusSettings(_env_file=None),
        storage=StorageSettings(_env_file=None, url=f"file:{tmp_path / 'store'}"),
        api=ApiSettings(
            _env_file=None,
            port=services.free_port(),
            keys=[SecretStr(API_KEY)],
            signing_secret=SecretStr("secret-for-tests"),
        ),
        media=MediaSettings(_env_file=None, recording_roots=[recordings], scratch=scratch, concurrency=2),
    )
    settings_module.use(made)
    return made


@pytest.fixture
def free_port() -> int:
    """A free TCP port of the loopback interface."""
    return services.free_port()


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    """An empty store in a folder of the test's own."""
    return LocalStore(tmp_path / "local-store")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.S3Server]:
    """One S3 server for the whole run, started when first asked for."""
    with services.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_store(s3_server: services.S3Server) -> ObjectStore:
    """An empty store in a bucket of the test's own, under a prefix."""
    return open_store(s3_server.settings(f"b{uuid.uuid4().hex[:12]}", "replays/live"))


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.PostgresqlServer]:
    """One PostgreSQL server for the whole run, started when first asked for."""
    with services.postgresql_server(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.RabbitMQ]:
    """One broker for the whole run, started when first asked for. Tests that kill one start their own."""
    with brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"), metrics_port=services.free_port()) as broker:
        yield broker


@pytest.fixture
def broker_url(rabbitmq: brokers.RabbitMQ) -> Iterator[str]:
    """A virtual host of the test's own, with all exchanges and queues."""
    url = rabbitmq.vhost()
    yield url
    rabbitmq.forget(url)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.RedisServer]:
    """One Redis for the whole run, started when first asked for."""
    with brokers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger of `settings`: SQLite, upgraded to the newest schema."""
    from tests.ledgers import migrated

    made = migrated(settings.ledger.url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a clip of `tests.clips.CLIPS`, made once a run, when first asked for."""
    from tests.clips import make

    folder = tmp_path_factory.mktemp("clips")
    return lambda name: make(name, folder)
