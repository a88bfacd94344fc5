"""Typed settings, one class per concern, each field documented.

Read from the environment, `.env` and, for secrets, files of their own (`control.secret_files`), in this order.

`current()` is what the process runs with. A command that decides some of it itself (`afterlive replay --out`) calls
`use()` before anything else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from control import secret_files


def _config(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=f"AFTERLIVE_{prefix}", env_file=".env", extra="ignore")


class Group(BaseSettings):
    """Settings of one concern."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where they come from, the first that has one; files are looked for when settings are read, not before."""
        if (folder := secret_files.folder()) is not None:
            file_secret_settings = secret_files.SecretFiles(settings_cls, secrets_dir=folder)
        return init_settings, env_settings, dotenv_settings, file_secret_settings


class LedgerSettings(Group):
    """Where the truth is kept."""

    model_config = _config("DATABASE_")
    url: str = Field(default="sqlite:///var/afterlive.sqlite", repr=False)
    """SQLAlchemy URL: SQLite embedded, `postgresql+psycopg://…` in production. It may hold a password, so no settings
    that are printed show it."""


class BusSettings(Group):
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


class StorageSettings(Group):
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


class ApiSettings(Group):
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


class WorkerSettings(Group):
    """What every worker process has."""

    model_config = _config("WORKER_")
    host: str = "127.0.0.1"
    """Address `/metrics` and `/healthz` answer on."""
    port: int = Field(default=9250, ge=0, le=65535)
    """Their port; 0 is none. Two workers on one machine need two."""


class TracingSettings(Group):
    """Traces (OpenTelemetry); they need the extra `tracing`."""

    model_config = _config("TRACING_")
    endpoint: str | None = None
    """Where a collector takes OTLP over HTTP: `http://collector:4318/v1/traces`. None: nothing is traced."""
    share: float = Field(default=0.05, ge=0, le=1)
    """Of the requests that are traced. One that is, is committed by itself."""


class MediaSettings(Group):
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
    pace_ms: float = Field(default=0, ge=0, le=100)
    """While encoders run on the CPU, how often each core is looked in at, so that who waits behind one has it at once
    and not at the kernel's next tick (4 ms where there are 250 a second). Where commerce is on it too; 0: off."""
    scratch: Path | None = None
    """Local folder for work in progress; None is the system's temporary folder."""
    chunk_seconds: float = Field(default=30.0, ge=6, le=600)
    """About how long a chunk is; always whole segments."""
    report_seconds: float = Field(default=30.0, gt=0, le=60)
    """How often a media worker tells the control plane what it can."""
    node_lost_seconds: float = Field(default=180.0, gt=0)
    """A media worker nothing was heard of for so long is gone: nothing is planned for its encoders any more, and what
    was planned for them alone is planned again."""
    chunks_in_flight: int = Field(default=4, ge=1)
    """Chunks of one stream on the bus at a time, so that a long stream does not starve a short one."""
    preset: str = "veryfast"
    """x264 preset; other encoders take what is nearest to it."""
    codec: Literal["h264", "hevc", "av1"] = "h264"
    """Of the video of new replays. All browsers play H.264; what rates suit another one, a ladder of your own says."""
    encoders: list[str] = Field(default_factory=lambda: ["h264_nvenc", "h264_vaapi", "libx264"])
    """The encoders (a JSON list) this node may use, best first: `h264_nvenc`, `h264_vaapi`, `libx264`; the same of
    `hevc` (`libx265`) and `av1` (`libsvtav1`). Where they are not named, those of another `codec` are added."""
    devices: list[str] = Field(default_factory=list)
    """The GPUs (a JSON list) to encode with, `nvenc:0` or `vaapi:/dev/dri/renderD128`; empty: all that are found."""
    sessions_per_device: int = Field(default=8, ge=1, le=1000)
    """Encoders at a time on one GPU, all workers of this node together. Drivers of GeForce cards allow so many."""
    hang_seconds: float = Field(default=120.0, gt=0)
    """An ffmpeg on a GPU that made no frame for so long hangs, and is ended."""
    refuse_cpu: bool = False
    """Whether this node refuses chunks that are for its CPU alone, rather than to be slow where a GPU should have done
    it. A small rung no GPU makes is still made beside those a GPU makes."""
    max_duration_seconds: float = 24 * 3600
    max_bytes: int = 200 * 1024**3
    max_pixels: int = 8192 * 8192
    """Width × height of the source."""
    normalise_lufs: float | None = None
    """Loudness to bring the audio to, in LUFS; None leaves it as it is."""
    ladder: Path | None = None
    """A ladder file of your own; None is Apple's table."""
    content_aware: bool = True
    """Whether Apple's rates are lowered to what a recording needs, and rungs left out that add nothing. A ladder of
    your own is taken as it is."""

    @model_validator(mode="after")
    def _encoders_of_the_codec(self) -> Self:
        if self.codec != "h264" and "encoders" not in self.model_fields_set:
            software = "libx265" if self.codec == "hevc" else "libsvtav1"
            self.encoders = [f"{self.codec}_nvenc", f"{self.codec}_vaapi", software, *self.encoders]
        return self


class OtpSettings(Group):
    """One-time passwords."""

    model_config = _config("OTP_")
    secret: SecretStr | None = None
    """Hashes codes, numbers and addresses, and seals codes on their way; the same for the API and the workers of `fast`
    and `notify`. Another one ends those that are under way. `afterlive up` makes one where there is none."""
    digits: int = Field(default=6, ge=4, le=10)
    validity_seconds: int = Field(default=300, ge=60, le=300)
    """How long a code is of use."""
    attempts: int = Field(default=5, ge=1, le=10)
    """Wrong answers a code stands; then it is locked."""
    resend_seconds: int = Field(default=30, ge=0, le=300)
    """How long a number waits for its next code."""
    hourly_per_phone: int = Field(default=5, ge=1)
    hourly_per_ip: int = Field(default=20, ge=1)
    """Of the end users' addresses, which the platform's back end names."""
    region: str = "TW"
    """Where numbers without a country code are from (ISO 3166-1)."""


class ShopSettings(Group):
    """Orders."""

    model_config = _config("SHOP_")
    reservation_seconds: int = Field(default=900, ge=1, le=7 * 24 * 3600)
    """How long stock is kept for an order that is not paid."""
    max_lines: int = Field(default=50, ge=1, le=500)
    """Products in one order."""
    max_quantity: int = Field(default=99, ge=1, le=1_000_000)
    """Of one product in one order."""
    idempotency_hours: int = Field(default=24, ge=1, le=30 * 24)
    """How long an Idempotency-Key is remembered."""


class AnalyticsSettings(Group):
    """What is counted of streams."""

    model_config = _config("ANALYTICS_")
    grace_seconds: int = Field(default=60, ge=1, le=3600)
    """Who gave no sign for so long has gone; twice as long as players let pass between two signs."""


class ReportSettings(Group):
    """Daily reports."""

    model_config = _config("REPORT_")
    zone: str = "Asia/Taipei"
    """Time zone (IANA) whose days they are of."""
    hour: int = Field(default=2, ge=0, le=23)
    """From which hour on, there, the day before is reported of."""
    locale: str = "zh-TW"
    """Of the report on all sellers: zh-TW or en. A seller's own is of the seller's language."""


class RetentionSettings(Group):
    """What becomes of old streams."""

    model_config = _config("RETENTION_")
    days: int = Field(default=0, ge=0)
    """So long after it ended, a stream's replay and events are removed; 0 keeps them for ever."""
    apply: bool = False
    """Whether the nightly cleaning really removes; without it, it tells what it would."""


class NotifySettings(Group):
    """Mail and messages."""

    model_config = _config("NOTIFY_")
    admins: list[str] = Field(default_factory=list)
    """Mail addresses (a JSON list) that are told of failures."""
    mail_url: SecretStr = SecretStr("console:")
    """`console:` writes mails to the log, `outbox:FOLDER` to files; `smtp://user:password@host:587`, `smtps://…:465`,
    `ses:REGION` (Amazon SES, with boto3's own search for credentials)."""
    mail_from: str = "afterlive@localhost"
    mail_ca_file: Path | None = None
    """PEM file of who signed the mail server's certificate; None is the system's list."""
    ses_endpoint: str | None = None
    """For servers that speak SES' API; None is AWS."""
    ses_configuration_set: str | None = None
    bulk_per_second: float = Field(default=10.0, gt=0, le=1000)
    """Mails a second that go out in bulk, all bulk sends together: what the provider allows, less what single mails
    need."""
    bulk_chunk: int = Field(default=10, ge=1, le=500)
    """Mails of a bulk send that one task sends, and at most a second's worth."""
    bulk_unsubscribe: str | None = None
    """`https://…` or `mailto:…` where who wants no more bulk mail says so; a bulk send may name another."""
    admin_locale: str = "en"
    """Language of the mails to administrators: `en` or `zh-TW`."""
    shop_name: str = "Afterlive"
    """Whom mails are from, in their text."""
    shop_url: str | None = None
    """The shop's own pages: mails link to URL/orders/ID and URL/replays/STREAM; None: mails have no links."""
    time_zone: str = "Asia/Taipei"
    """Of the times in mails."""
    sms_urls: list[SecretStr] = Field(default_factory=lambda: [SecretStr("console:")])
    """Providers of text messages (a JSON list), the next one where one is away: `console:FOLDER` (or `console:`,
    which is `var/outbox`) writes them into a file, to be read by whoever may, codes and numbers and all;
    `sns:ap-northeast-1` is Amazon's (credentials by boto3's own search), `https://:TOKEN@host/path` another's."""
    sms_sns_endpoint: str | None = None
    """For servers that speak SNS; None is AWS."""
    sms_http_fields: dict[str, SecretStr] = Field(
        default_factory=lambda: {"to": SecretStr("{to}"), "text": SecretStr("{text}")}
    )
    """What an HTTP provider is sent (a JSON object): {to} is the number in E.164, {digits} the same without its +,
    {text} the text, {key} the same each time the same message is sent. It may hold an account and its password."""
    sms_http_format: Literal["json", "form"] = "json"
    sms_http_id: str = "id"
    """The field of the provider's JSON answer that names the message."""


class PaymentSettings(Group):
    """Payments, and the gateway they go through. Without a merchant there are none."""

    model_config = _config("PAYMENT_")
    gateway: str = "ecpay"
    merchant_id: str | None = None
    """ECPay's MerchantID."""
    hash_key: SecretStr | None = None
    """ECPay's HashKey and HashIV: whoever has them can say that something was paid."""
    hash_iv: SecretStr | None = None
    base_url: str = "https://payment.ecpay.com.tw"
    """`https://payment-stage.ecpay.com.tw` for trials, `http://127.0.0.1:PORT` for `afterlive fake-ecpay`."""
    methods: str = "Credit"
    """ECPay's ChoosePayment. `ALL` lets buyers pay days later at a cash machine too; such payments it gives back to
    nobody, that is done by hand."""
    return_url: str | None = None
    """Where the gateway reaches this API; None is `AFTERLIVE_API_PUBLIC_URL`."""
    back_url: str | None = None
    """Where the gateway sends a buyer who has paid; None is nowhere."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long the gateway may take to answer a question."""
    accept_simulated: bool = False
    """Take a payment that was only simulated for a real one: for trials, never in production."""
    ask_after_seconds: float = Field(default=600.0, gt=0)
    """A payment nothing was heard of for so long is asked for."""
    expire_after_seconds: float = Field(default=24 * 3600.0, gt=0)
    """A payment is not waited for any longer than this."""


class WebhookSettings(Group):
    """Webhooks to other systems."""

    model_config = _config("WEBHOOK_")
    allow_private: bool = False
    """Whether they may go to private and loopback addresses."""
    allow_http: bool = False
    """Whether they may go without TLS, where anybody on the way can read them."""
    ports: list[int] = Field(default_factory=list)
    """The only ports they may go to (a JSON list); empty: any."""
    ca_file: Path | None = None
    """PEM file of who signed the receivers' certificates; None is the system's list."""
    connect_seconds: float = Field(default=5.0, gt=0, le=30)
    total_seconds: float = Field(default=15.0, gt=0, le=30)
    """How long an attempt may take, from looking the host up to the answer."""
    in_flight: int = Field(default=2, ge=1)
    """Attempts at one endpoint at a time; at one that fails, one."""
    retry_seconds: list[float] = Field(default_factory=lambda: [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0])
    """How long to wait after each attempt that failed, about a day in all (a JSON list); then it has failed."""
    disable_seconds: float = Field(default=86400, gt=0)
    """An endpoint at which all has failed for so long is disabled, and the administrators are told."""


class Settings(BaseSettings):
    """All of it."""

    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    bus: BusSettings = Field(default_factory=BusSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)
    shop: ShopSettings = Field(default_factory=ShopSettings)
    analytics: AnalyticsSettings = Field(default_factory=AnalyticsSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    otp: OtpSettings = Field(default_factory=OtpSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    media: MediaSettings = Field(default_factory=MediaSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    payment: PaymentSettings = Field(default_factory=PaymentSettings)


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
