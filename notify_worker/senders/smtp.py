"""Mails by SMTP, with TLS wherever the server offers it, and never a password without."""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from control.errors import AfterliveError, ConfigurationError, RecipientRefused, SenderRefused, SenderUnavailable
from notify_worker.senders.base import Mail, MailSender
from notify_worker.senders.mime import message

log = logging.getLogger("afterlive.mail")
KINDS: Final = "console:, outbox:FOLDER, smtp://…, smtps://… or ses:REGION"
_SECONDS: Final = 20.0
_PORTS: Final = {"smtp": 587, "smtps": 465}
# No such mailbox, no such host, no such syntax, moved, no mail at all there (RFC 3463, 3.2; RFC 7505), disabled.
_NO_MAILBOX: Final = re.compile(rb"5\.(1\.(1|2|3|6|10)|2\.1)\b")


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
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_URL", reason=KINDS)
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ConfigurationError(setting="AFTERLIVE_NOTIFY_MAIL_CA_FILE", reason=str(error)) from None

    def send(self, mail: Mail) -> None:
        with self.many() as sender:
            sender.send(mail)

    @contextmanager
    def many(self) -> Iterator[MailSender]:
        """A sender by one connection, opened when it is needed, until the block ends."""
        with ExitStack() as stack:
            opened: list[smtplib.SMTP] = []

            def server() -> smtplib.SMTP:
                # A server that hung up, after an error or so many mails, is called again.
                if not opened or opened[0].sock is None:
                    opened[:] = [stack.enter_context(self._connected())]
                return opened[0]

            yield _Connected(self, server)

    def send_by(self, server: Callable[[], smtplib.SMTP], mail: Mail) -> None:
        """Send it by this connection. Raises as MailSender."""
        made = self._made(mail)
        try:
            refused = server().send_message(made)
        except smtplib.SMTPResponseException as error:
            # Before the mail itself it is we who are not liked: who logs in, who is the sender.
            every = not isinstance(error, smtplib.SMTPDataError)
            reason = f"the server said {error.smtp_code}"
            raise _kind([error.smtp_code])(channel="mail", reason=reason, every=every) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(list(error.recipients.values())) from None
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
        return message(mail, self._sender)

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
                reason = "the server offers no TLS, and there is a password to send"
                raise SenderRefused(channel="mail", reason=reason, every=True)
            server.login(unquote(self._url.username), unquote(self._url.password or ""))


class _Connected:
    def __init__(self, sender: SmtpSender, server: Callable[[], smtplib.SMTP]) -> None:
        self._sender = sender
        self._server = server

    def send(self, mail: Mail) -> None:
        self._sender.send_by(self._server, mail)


def _kind(codes: list[int]) -> type[AfterliveError]:
    """5xx is final (RFC 5321, 4.2.1); of several recipients the others may have it the next time."""
    return SenderRefused if all(500 <= code < 600 for code in codes) else SenderUnavailable


def _refused(answers: list[tuple[int, bytes]]) -> AfterliveError:
    """All recipients were. That a mailbox does not exist is believed where the server says so in so many words
    (RFC 3463): a bare 550 is as often the word of a server that does not know us."""
    codes = sorted({code for code, _ in answers})
    kind = _kind(codes)
    if kind is SenderRefused:
        kind = RecipientRefused
    gone = len(answers) == 1 and bool(_NO_MAILBOX.match(answers[0][1]))
    return kind(channel="mail", reason=f"the server refused the recipients: {codes}", gone=gone)
