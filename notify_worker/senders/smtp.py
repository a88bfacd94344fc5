"""Mails by SMTP, with TLS wherever the server offers it, and never a password without."""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from control.errors import AfterliveError, ConfigurationError, SenderRefused, SenderUnavailable
from notify_worker.senders.base import Mail

log = logging.getLogger("afterlive.mail")
_SECONDS: Final = 20.0
_PORTS: Final = {"smtp": 587, "smtps": 465}


class SmtpSender:
    """`smtp://user:password@host:587` (STARTTLS where offered, and always where there is a password) or
    `smtps://…:465`. The server's certificate must be signed by one of the system's list, or of `ca_file`.

    Raises ConfigurationError.
    """

    def __init__(self, url: str, sender: str, ca_file: Path | None = None) -> None:
        self._url = urlsplit(url)
        self._sender = sender
        try:
            self._port = self._url.port or _PORTS[self._url.scheme]
        except (KeyError, ValueError):
            self._port = 0
        # No word of the address itself: there is a password in it.
        if not self._port or not self._url.hostname:
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason="console:, smtp://… or smtps://…")
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_CA_FILE", reason=str(error)) from None

    def send(self, mail: Mail) -> None:
        made = self._made(mail)
        try:
            with self._connected() as server:
                refused = server.send_message(made)
        except smtplib.SMTPResponseException as error:
            raise _kind([error.smtp_code])(channel="mail", reason=f"the server said {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _ in error.recipients.values()})
            raise _kind(codes)(channel="mail", reason=f"the server refused the recipients: {codes}") from None
        except smtplib.SMTPNotSupportedError as error:
            raise SenderRefused(channel="mail", reason=str(error)) from None
        except ssl.SSLCertVerificationError as error:
            # A certificate that expired is renewed; this mail need not be lost.
            reason = f"the server's certificate is not accepted: {error.verify_message}"
            raise SenderUnavailable(channel="mail", reason=reason) from None
        except (smtplib.SMTPException, OSError) as error:
            raise SenderUnavailable(channel="mail", reason=type(error).__name__) from None
        if refused:
            # Sent again it would come twice to the others.
            codes = sorted({code for code, _ in refused.values()})
            log.warning("a mail was refused for %d of %d recipients: %s", len(refused), len(mail.to), codes)

    def _made(self, mail: Mail) -> EmailMessage:
        made = EmailMessage()
        made["From"], made["To"] = _address(self._sender), ", ".join(map(_address, mail.to))
        made["Subject"], made["Message-ID"] = _line(mail.subject), _line(mail.message_id)
        made["Date"] = formatdate()
        made["Auto-Submitted"] = "auto-generated"  # nobody who is away need answer (RFC 3834)
        if len(made["To"].addresses) != len(mail.to) or not mail.to or made["To"].defects:
            raise SenderRefused(channel="mail", reason="an address is not exactly one address")
        # Not every server takes eight bits.
        made.set_content(mail.text, cte="quoted-printable")
        return made

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        host = str(self._url.hostname)
        if self._url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, self._port, timeout=_SECONDS, context=self._tls)
        else:
            server = smtplib.SMTP(host, self._port, timeout=_SECONDS)
        try:
            self._greet(server)
            yield server
            # It has the mail: how it says good-bye does not matter.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()

    def _greet(self, server: smtplib.SMTP) -> None:
        server.ehlo()
        secure = self._url.scheme == "smtps"
        if not secure and server.has_extn("starttls"):
            server.starttls(context=self._tls)
            secure = True
        if self._url.username:
            if not secure:  # whoever sits in between may have taken the offer out
                raise SenderRefused(channel="mail", reason="the server offers no TLS, and there is a password to send")
            server.login(unquote(self._url.username), unquote(self._url.password or ""))


def _kind(codes: list[int]) -> type[AfterliveError]:
    """5xx is final (RFC 5321, 4.2.1); of several recipients the others may have it the next time."""
    return SenderRefused if all(500 <= code < 600 for code in codes) else SenderUnavailable


def _address(text: str) -> str:
    """As it is: what would begin another header is refused rather than mended, or somebody else got the mail."""
    if not text.isprintable():
        raise SenderRefused(channel="mail", reason="an address has characters that no address has")
    return text


def _line(text: str) -> str:
    """In one line, whatever it was."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
