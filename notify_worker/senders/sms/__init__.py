"""Ways to a phone, chosen by the settings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from control.errors import ConfigurationError
from control.settings import NotifySettings
from notify_worker.senders.sms.base import SmsSender
from notify_worker.senders.sms.failover import FailoverSender

__all__ = ["FailoverSender", "SmsSender", "sms_sender"]

_OUTBOX = "var/outbox"


def sms_sender(settings: NotifySettings) -> FailoverSender:
    """One for as long as the settings are the same: it knows who was away, and keeps connections open. Raises
    ConfigurationError for an address nobody can send by."""
    return _made(
        tuple(url.get_secret_value() for url in settings.sms_urls),
        settings.sms_sns_endpoint,
        tuple((name, value.get_secret_value()) for name, value in settings.sms_http_fields.items()),
        settings.sms_http_format,
        settings.sms_http_id,
    )


@lru_cache(maxsize=8)
def _made(
    urls: tuple[str, ...],
    sns_endpoint: str | None,
    fields: tuple[tuple[str, str], ...],
    encoding: Literal["json", "form"],
    id_field: str,
) -> FailoverSender:
    def one(url: str) -> SmsSender:
        # Each when it is asked for: boto3 alone takes half a second to load.
        if url.startswith("console:"):
            from notify_worker.senders.sms.console import ConsoleSmsSender

            return ConsoleSmsSender(Path(url.removeprefix("console:") or _OUTBOX))
        if url.startswith("sns:"):
            from notify_worker.senders.sms.sns import SnsSender

            return SnsSender(url.removeprefix("sns:"), sns_endpoint)
        from notify_worker.senders.sms.http import HttpSender

        return HttpSender(url, dict(fields), encoding, id_field)

    if not urls:
        raise ConfigurationError(setting="AFTERLIVE_NOTIFY_SMS_URLS", reason="there is no provider in it")
    return FailoverSender([one(url) for url in urls])
