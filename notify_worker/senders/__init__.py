"""Ways out of the platform: one behind each Protocol, chosen by the settings."""

from __future__ import annotations

from control.settings import NotifySettings
from notify_worker.senders.base import Mail, MailSender
from notify_worker.senders.console import ConsoleSender
from notify_worker.senders.smtp import SmtpSender

__all__ = ["ConsoleSender", "Mail", "MailSender", "mail_sender"]


def mail_sender(settings: NotifySettings) -> MailSender:
    """Raises ConfigurationError for an address nobody can send by."""
    url = settings.mail_url.get_secret_value()
    return ConsoleSender() if url == "console:" else SmtpSender(url, settings.mail_from, settings.mail_ca_file)
