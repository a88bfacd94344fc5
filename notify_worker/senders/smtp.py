"""Mails by SMTP, with TLS wherever the server offers it."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final
from urllib.parse import unquote, urlsplit

from control.errors import ConfigurationError, SenderRefused, SenderUnavailable
from notify_worker.senders.base import Mail

_SECONDS: Final = 20.0
_PORTS: Final = {"smtp": 587, "smtps": 465}


class SmtpSender:
    """`smtp://user:password@host:587` (STARTTLS where offered) or `smtps://…:465`."""

    def __init__(self, url: str, sender: str) -> None:
        self._url = urlsplit(url)
        self._sender = sender
        if self._url.scheme not in _PORTS or not self._url.hostname:
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason="console:, smtp://… or smtps://…")

    def send(self, mail: Mail) -> None:
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = self._sender, ", ".join(mail.to), mail.subject
        made["Date"], made["Message-ID"] = formatdate(), mail.message_id
        made.set_content(mail.text)
        try:
            with self._connect() as server:
                server.send_message(made)
        except smtplib.SMTPResponseException as error:
            # 4xx passes, 5xx does not (RFC 5321, 4.2.1).
            kind = SenderUnavailable if 400 <= error.smtp_code < 500 else SenderRefused
            raise kind(channel="mail", reason=f"the server said {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _ in error.recipients.values()})
            kind = SenderUnavailable if all(400 <= code < 500 for code in codes) else SenderRefused
            raise kind(channel="mail", reason=f"the server refused the recipients: {codes}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise SenderUnavailable(channel="mail", reason=type(error).__name__) from None

    def _connect(self) -> smtplib.SMTP:
        host, port = str(self._url.hostname), self._url.port or _PORTS[self._url.scheme]
        tls = ssl.create_default_context()
        if self._url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=tls)
        else:
            server = smtplib.SMTP(host, port, timeout=_SECONDS)
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=tls)
        if self._url.username:
            server.login(unquote(self._url.username), unquote(self._url.password or ""))
        return server
