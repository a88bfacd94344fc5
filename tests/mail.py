# ruff: noqa: ARG002, N802  (the arguments and names by which aiosmtpd calls)
"""A real SMTP server that keeps what it gets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from tests.services import free_port

USER, PASSWORD = "notices", "p@ss/word:1"


@dataclass
class MailServer:
    """Its mails, in order, and what it says instead of taking one."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)
    """Whether the mail came by TLS."""
    users: list[str] = field(default_factory=list)
    says: dict[str, str] = field(default_factory=dict)
    """By command (MAIL, DATA) or recipient."""

    async def handle_MAIL(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if "MAIL" in self.says:
            return self.says["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address in self.says:
            return self.says[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        if "DATA" in self.says:
            return self.says["DATA"]
        made = message_from_bytes(envelope.content, policy=default)
        assert isinstance(made, EmailMessage)
        self.mails.append(made)
        self.to.append(list(envelope.rcpt_tos))
        assert server.transport is not None
        self.secure.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Any, envelope: Any) -> str:
        return self.says.get("QUIT", "221 Bye")

    def authenticate(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        if "AUTH" in self.says:
            return AuthResult(success=False, handled=False, message=self.says["AUTH"])
        right = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        if right:
            self.users.append(data.login.decode())
        return AuthResult(success=right, handled=False)


def plain(mail: EmailMessage) -> str:
    """Its plain text."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


@contextmanager
def mail_server(
    *, signed_by: trustme.CA | None = None, tls_from_the_start: bool = False, authenticated: bool = False
) -> Iterator[MailServer]:
    """Runs until the block ends. `signed_by`: it offers TLS, with a certificate for `localhost`."""
    made = MailServer(free_port())
    context: ssl.SSLContext | None = None
    if signed_by is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        signed_by.issue_cert("localhost").configure_cert(context)
    options: dict[str, Any] = {"authenticator": made.authenticate, "auth_required": authenticated}
    if tls_from_the_start:
        options |= {"ssl_context": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "auth_require_tls": context is not None}
    controller = Controller(made, hostname="127.0.0.1", port=made.port, **options)
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
