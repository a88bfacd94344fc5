"""Mails as text in the log: for a machine without a mail server."""

from __future__ import annotations

import logging

from notify_worker.senders.base import Mail

log = logging.getLogger("afterlive.mail")


class ConsoleSender:
    """Shows a mail instead of sending it."""

    def send(self, mail: Mail) -> None:
        to = ", ".join(mail.to) or "nobody (AFTERLIVE_NOTIFY_ADMINS is empty)"
        log.warning("mail to %s: %s\n%s", to, mail.subject, mail.text)
