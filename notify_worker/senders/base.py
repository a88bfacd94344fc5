"""What a mail is, and who can send one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Mail:
    """One mail, in plain text."""

    to: tuple[str, ...]
    subject: str
    text: str
    message_id: str
    """The same each time it is sent, so that a receiver that gets it twice can tell."""


class MailSender(Protocol):
    """Sends mails. Raises SenderUnavailable where trying again can help, SenderRefused where it cannot."""

    def send(self, mail: Mail) -> None: ...
