"""Typed settings, one class per concern, each field documented.

Read from the environment and `.env`; secrets from nowhere else.

`current()` is what the process runs with. A command that decides some of it itself (`afterlive replay --out`) calls
`use()` before anything else.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _config(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=f"AFTERLIVE_{prefix}", env_file=".env", extra="ignore")


class LedgerSettings(BaseSettings):
    """Where the truth is kept."""

    model_config = _config("DATABASE_")
    url: str = Field(default="sqlite:///var/afterlive.sqlite", repr=False)
    """SQLAlchemy URL: SQLite embedded, `postgresql+psycopg://…` in production. It may hold a password, so no settings
    that are printed show it."""


class BusSettings(BaseSettings):
    """The message bus."""

    model_config = _config("BUS_")
    broker_url: SecretStr = SecretStr("memory://")
    """`memory://` embedded, `amqps://user:password@host/vhost` in production."""
    result_backend: SecretStr = SecretStr("cache+memory://")
    """`rediss://…` in production."""
    ca_file: Path | None = None
    """PEM file of who signed the broker's and Redis' certificates; None is the system's list."""
    cert_file: Path | None = None
    """PEM file of this node's own certificate, where the servers ask for one."""
    key_file: Path | None = None
    signing_keys: list[SecretStr] = Field(default_factory=list)
    """Sign messages with the first, and do nothing that is signed with none of them (a JSON list); empty: unsigned."""
    publish_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long a message may wait for the broker's confirmation; then it is kept and tried again."""


class StorageSettings(BaseSettings):
    """The object store of finished replays."""

    model_config = _config("STORAGE_")
    url: str = "file:var/store"
    """`file:FOLDER` or `s3://bucket/prefix`."""
    s3_endpoint: str | None = None
    """For S3-compatible servers; None is AWS."""
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    """None: boto3's own search (instance role, profile)."""
    s3_secret_key: SecretStr | None = None


class ApiSettings(BaseSettings):
    """The HTTP API."""

    model_config = _config("API_")
    host: str = "127.0.0.1"
    port: int = 8000
    keys: list[SecretStr] = Field(default_factory=list)
    """Accepted API keys (a JSON list). `afterlive up` makes one where there is none."""
    signing_secret: SecretStr | None = None
    """Signs playback links. `afterlive up` makes one where there is none."""
    public_url: str | None = None
    """How clients reach the API, where that is not `http://host:port`."""
    playback_link_seconds: int = 24 * 3600
    """How long a playback link works."""


class WorkerSettings(BaseSettings):
    """What every worker process has."""

    model_config = _config("WORKER_")
    host: str = "127.0.0.1"
    """Address `/metrics` and `/healthz` answer on."""
    port: int = Field(default=9250, ge=0, le=65535)
    """Their port; 0 is none. Two workers on one machine need two."""


class MediaSettings(BaseSettings):
    """Transcoding."""

    model_config = _config("MEDIA_")
    recording_roots: list[Path] = Field(default_factory=lambda: [Path("var/recordings")])
    """Folders (a JSON list) recordings may be read from; anything else is refused."""
    recording_prefixes: list[str] = Field(default_factory=lambda: ["recordings/"])
    """What the keys of recordings in the object store (`store:KEY`) start with (a JSON list)."""
    ffmpeg: str | None = None
    """Path of ffmpeg; None takes the one of the package imageio-ffmpeg."""
    concurrency: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Media tasks at a time in one worker."""
    scratch: Path | None = None
    """Local folder for work in progress; None is the system's temporary folder."""
    chunk_seconds: float = Field(default=30.0, ge=6, le=600)
    """About how long a chunk is; always whole segments."""
    chunks_in_flight: int = Field(default=4, ge=1)
    """Chunks of one stream on the bus at a time, so that a long stream does not starve a short one."""
    preset: str = "veryfast"
    """x264 preset."""
    max_duration_seconds: float = 24 * 3600
    max_bytes: int = 200 * 1024**3
    max_pixels: int = 8192 * 8192
    """Width × height of the source."""
    normalise_lufs: float | None = None
    """Loudness to bring the audio to, in LUFS; None leaves it as it is."""
    ladder: Path | None = None
    """A ladder file of your own; None is Apple's table."""


class NotifySettings(BaseSettings):
    """Mail and messages."""

    model_config = _config("NOTIFY_")
    admins: list[str] = Field(default_factory=list)
    """Mail addresses (a JSON list) that are told of failures."""
    mail_url: SecretStr = SecretStr("console:")
    """`console:` writes mails to the log; `smtp://user:password@host:587`, `smtps://…:465`."""
    mail_from: str = "afterlive@localhost"
    mail_ca_file: Path | None = None
    """PEM file of who signed the mail server's certificate; None is the system's list."""


class Settings(BaseSettings):
    """All of it."""

    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    bus: BusSettings = Field(default_factory=BusSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    media: MediaSettings = Field(default_factory=MediaSettings)


_current: Settings | None = None


def current() -> Settings:
    """The settings this process runs with, read on first use."""
    global _current
    if _current is None:
        _current = Settings()
    return _current


def use(settings: Settings) -> None:
    """Run with these settings from now on."""
    global _current
    _current = settings
