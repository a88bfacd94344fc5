"""A notice as a mail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from control.ledger.notice_models import Notice
from control.settings import NotifySettings
from notify_worker.rendering import Rendered, render
from notify_worker.senders import Mail, MailSender, mail_sender


def by_mail(settings: NotifySettings) -> Callable[[Notice], str | None]:
    """Sends a notice by mail. Raises ConfigurationError, and as MailSender does."""
    sender = mail_sender(settings)
    return lambda notice: sender.send(mail_of(notice, settings))


def in_bulk(settings: NotifySettings, content: dict[str, Any], sender: MailSender) -> Callable[[Notice], str | None]:
    """As `by_mail`, of a bulk send with this content (control.ledger.bulks)."""
    unsubscribe = content.get("unsubscribe") or settings.bulk_unsubscribe

    def send(notice: Notice) -> str | None:
        if content.get("template"):
            data = {**content["data"], **notice.data, "unsubscribe": unsubscribe}
            made = render(content["template"], notice.locale, data, settings)
        else:
            made = Rendered(content["subject"], content["text"], content.get("html"))
        return sender.send(_mail(notice, made, unsubscribe, settings))

    return send


def mail_of(notice: Notice, settings: NotifySettings) -> Mail:
    """The mail of a notice, the same each time."""
    return _mail(notice, render(notice.template, notice.locale, notice.data, settings), None, settings)


def _mail(notice: Notice, made: Rendered, unsubscribe: str | None, settings: NotifySettings) -> Mail:
    domain = settings.mail_from.rpartition("@")[2].strip("> ") or "afterlive.invalid"
    name = hashlib.sha256(notice.key.encode()).hexdigest()[:32]
    return Mail((notice.to,), made.subject, made.text, f"<{name}@{domain}>", made.html, unsubscribe)
