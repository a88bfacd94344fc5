"""What a mail is, and who can send one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Mail:
    """One mail: plain text, and the same as HTML where there is such."""

    to: tuple[str, ...]
    subject: str
    text: str
    message_id: str
    """The same each time it is sent, so that a receiver that gets it twice can tell."""
    html: str | None = None
    unsubscribe: str | None = None
    """`https://…` or `mailto:…`, of mail that goes to many."""


class MailSender(Protocol):
    """Sends mails; the provider's own id of one, where it has such. Raises SenderUnavailable where trying again can
    help; SenderRefused where it cannot (its fact `every`: no mail would be taken, until somebody mends a setting), and
    RecipientRefused where that is the address's fault (its fact `gone`: there is no such mailbox)."""

    def send(self, mail: Mail) -> str | None: ...
