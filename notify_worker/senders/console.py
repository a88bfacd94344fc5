"""Mails as text in the log, or as files in a folder: for a machine without a mail server."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path

from control.errors import SenderUnavailable
from control.ledger.notices import masked
from notify_worker.senders.base import Mail
from notify_worker.senders.mime import message

log = logging.getLogger("afterlive.mail")


class ConsoleSender:
    """Shows a mail instead of sending it. Of addresses no more than who knows them anyway can tell."""

    def send(self, mail: Mail) -> None:
        to = ", ".join(map(masked, mail.to)) or "nobody (AFTERLIVE_NOTIFY_ADMINS is empty)"
        log.warning("mail to %s: %s\n%s", to, mail.subject, mail.text)


class OutboxSender:
    """Puts each mail into `folder`, to be looked at: NAME.eml as it would be sent, NAME.txt, and NAME.html for a
    browser. Sent twice it is there once."""

    def __init__(self, folder: Path, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    def send(self, mail: Mail) -> str:
        made = message(mail, self._sender)
        name = hashlib.sha256(mail.message_id.encode()).hexdigest()[:12]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            before = next(self._folder.glob(f"*-{name}.eml"), None)
            stem = before.stem if before else f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:19] + f"-{name}"
            (self._folder / f"{stem}.txt").write_text(f"{mail.subject}\n\n{mail.text}", encoding="utf-8")
            if mail.html is not None:
                (self._folder / f"{stem}.html").write_text(mail.html, encoding="utf-8")
            (self._folder / f"{stem}.eml").write_bytes(made.as_bytes())
        except OSError as error:
            raise SenderUnavailable(channel="mail", reason=f"the outbox: {error.strerror}") from None
        log.info("a mail is in the outbox: %s", self._folder / f"{stem}.{'txt' if mail.html is None else 'html'}")
        return stem
