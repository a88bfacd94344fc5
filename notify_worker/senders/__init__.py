"""Ways out of the platform: one behind each Protocol, chosen by the settings."""

from __future__ import annotations

from pathlib import Path

from control.errors import ConfigurationError
from control.settings import NotifySettings
from notify_worker.senders.base import Mail, MailSender
from notify_worker.senders.console import ConsoleSender, OutboxSender
from notify_worker.senders.ses import SesSender
from notify_worker.senders.smtp import KINDS, SmtpSender

__all__ = ["ConsoleSender", "Mail", "MailSender", "OutboxSender", "SesSender", "mail_sender"]


def mail_sender(settings: NotifySettings) -> MailSender:
    """Raises ConfigurationError for an address nobody can send by."""
    url = settings.mail_url.get_secret_value()
    kind, _, rest = url.partition(":")
    if url == "console:":
        return ConsoleSender()
    if kind == "outbox":
        if not rest:
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason=KINDS)
        return OutboxSender(Path(rest), settings.mail_from)
    if kind == "ses":
        endpoint, configuration_set = settings.ses_endpoint, settings.ses_configuration_set
        return SesSender(rest, settings.mail_from, endpoint=endpoint, configuration_set=configuration_set)
    return SmtpSender(url, settings.mail_from, settings.mail_ca_file)
