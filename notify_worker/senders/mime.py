"""A mail as it goes over the wire."""

from __future__ import annotations

import re
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final

from control.errors import SenderRefused
from notify_worker.senders.base import Mail

_UNSUBSCRIBE: Final = re.compile(r"(https|mailto):[!-;=?-~]+")


def message(mail: Mail, sender: str) -> EmailMessage:
    """The mail with all its headers, in ASCII. Raises SenderRefused where an address is not exactly one address."""
    made = EmailMessage()
    made["From"], made["To"] = _address(sender), ", ".join(map(_address, mail.to))
    made["Subject"], made["Message-ID"] = _line(mail.subject), _line(mail.message_id)
    made["Date"] = formatdate()
    made["Auto-Submitted"] = "auto-generated"  # nobody who is away need answer (RFC 3834)
    if mail.unsubscribe and _UNSUBSCRIBE.fullmatch(mail.unsubscribe):
        made["List-Unsubscribe"] = f"<{mail.unsubscribe}>"  # RFC 2369
    if len(made["To"].addresses) != len(mail.to) or not mail.to or made["To"].defects:
        raise SenderRefused(channel="mail", reason="an address is not exactly one address")
    # Not every server takes eight bits.
    made.set_content(mail.text, cte="quoted-printable")
    if mail.html is not None:
        made.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return made


def _address(text: str) -> str:
    """As it is: what would begin another header is refused rather than mended, or somebody else got the mail."""
    if not text.isprintable():
        raise SenderRefused(channel="mail", reason="an address has characters that no address has")
    return text


def _line(text: str) -> str:
    """In one line, whatever it was."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
