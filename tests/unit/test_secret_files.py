"""Secrets as files: Docker's, Kubernetes' and systemd's way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.errors import ConfigurationError
from control.settings import ApiSettings, BusSettings, LedgerSettings, Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "secrets"
    made.mkdir()
    (made / "afterlive_bus_broker_url").write_text("amqps://afterlive-media:of-the-file@broker/afterlive\n")
    (made / "afterlive_api_keys").write_text('["one", "two"]\n')
    (made / "afterlive_database_url").write_text("postgresql+psycopg://afterlive:of-the-file@postgres/afterlive")
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("variable", ["AFTERLIVE_SECRETS_DIR", "CREDENTIALS_DIRECTORY"])
def test_a_file_is_a_setting(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, str(folder))
    settings = Settings()
    assert settings.bus.broker_url.get_secret_value() == "amqps://afterlive-media:of-the-file@broker/afterlive"
    assert [key.get_secret_value() for key in settings.api.keys] == ["one", "two"]
    assert settings.ledger.url.endswith(":of-the-file@postgres/afterlive")
    assert "of-the-file" not in repr(settings)
    # What has no file keeps its default.
    assert settings.api.port == 8000


def test_the_environment_wins_and_so_does_the_env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERLIVE_SECRETS_DIR", str(folder))
    monkeypatch.setenv("AFTERLIVE_BUS_BROKER_URL", "amqp://environment/")
    (folder.parent / ".env").write_text("AFTERLIVE_DATABASE_URL=sqlite:///env-file.sqlite\n")
    assert BusSettings().broker_url.get_secret_value() == "amqp://environment/"
    assert LedgerSettings().url == "sqlite:///env-file.sqlite"
    assert BusSettings(broker_url="amqp://code/").broker_url.get_secret_value() == "amqp://code/"


def test_a_folder_that_is_named_and_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERLIVE_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match=r"AFTERLIVE_SECRETS_DIR is wrong: .*nowhere is not a folder"):
        BusSettings()


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder anybody may look into, while this process is no longer root (who may read everything)."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        secret = Path(made) / "afterlive_api_keys"
        secret.write_text('["one"]')
        secret.chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield Path(made)
        finally:
            os.seteuid(before)


def test_a_file_that_may_not_be_read_is_told(as_nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERLIVE_SECRETS_DIR", str(as_nobody))
    with pytest.raises(ConfigurationError, match=r"afterlive_api_keys cannot be read: Permission denied"):
        ApiSettings(_env_file=None)
