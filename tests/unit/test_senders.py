"""Mails before any server sees them: what they hold, and what becomes of a wrong one."""

from __future__ import annotations

import logging
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control.errors import ConfigurationError, SenderRefused
from control.ledger.base import now
from control.ledger.failures import Group
from control.settings import NotifySettings
from notify_worker.senders import ConsoleSender, Mail, mail_sender
from notify_worker.senders.smtp import SmtpSender
from notify_worker.tasks.admin import text_of

SENDER = SmtpSender("smtp://localhost", "afterlive@example.com")


def mail(**changes: object) -> Mail:
    made = {"to": ("ops@example.com",), "subject": "a subject", "text": "a text", "message_id": "<1@example.com>"}
    return Mail(**(made | changes))  # type: ignore[arg-type]


def made(of: Mail) -> EmailMessage:
    return SENDER._made(of)


def group(**changes: object) -> Group:
    at = now()
    facts = {"task": "tests.work", "reason": "failed", "code": "transient-error", "count": 3, "example": "It broke."}
    return Group(**(facts | {"first_at": at, "last_at": at} | changes))  # type: ignore[arg-type]


@given(subject=st.text(max_size=60))
def test_a_subject_is_one_line_whatever_it_was(subject: str) -> None:
    message = SENDER._made(mail(subject=f"{subject}\r\nBcc: other@example.com\n"))
    assert message["Bcc"] is None
    assert "\nbcc:" not in message.as_string().lower()


@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com\nBcc: other@example.com",
        "ops@example.com\r\n",
        "ops@example.com, other@example.com",
        "ops@example.com\0",
        "ops@example.com\u2028x",
        "",
        "@",
    ],
)
def test_an_address_that_is_not_one_is_refused(address: str) -> None:
    with pytest.raises(SenderRefused):
        made(mail(to=(address,)))


def test_no_recipient_is_refused() -> None:
    with pytest.raises(SenderRefused):
        made(mail(to=()))


def test_a_mail_as_it_is_sent() -> None:
    message = made(mail(to=("ops@example.com", "Night shift <night@example.com>"), text="2 × 失敗\n.\nend"))
    assert [address.addr_spec for address in message["To"].addresses] == ["ops@example.com", "night@example.com"]
    assert message["Message-ID"] == "<1@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content() == "2 × 失敗\n.\nend\n"
    assert message.as_bytes().isascii()  # not every server takes eight bits


@pytest.mark.parametrize("url", ["mailto:x", "smtp://", "smtp://user:hunter2@host:port", "http://host", ""])
def test_an_address_of_no_mail_server_is_a_setting_that_is_wrong(url: str) -> None:
    with pytest.raises(ConfigurationError, match="AFTERLIVE_NOTIFY_MAIL_URL") as caught:
        mail_sender(NotifySettings(_env_file=None, mail_url=SecretStr(url)))
    assert "hunter2" not in str(caught.value)


def test_a_missing_ca_file_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AFTERLIVE_NOTIFY_MAIL_CA_FILE"):
        SmtpSender("smtps://host", "a@example.com", tmp_path / "none.pem")


def test_without_a_mail_server_mails_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sender = mail_sender(NotifySettings(_env_file=None))
    assert isinstance(sender, ConsoleSender)
    sender.send(mail(to=()))
    assert "nobody (AFTERLIVE_NOTIFY_ADMINS is empty)" in caplog.text
    assert "a text" in caplog.text


def test_the_notice_is_short_however_much_failed() -> None:
    groups = [group(task=f"tests.work{number}", example="x" * 5000, count=10) for number in range(100)]
    text = text_of(groups, 1000, now())
    assert text.startswith("1000 failed since the last mail")
    assert "    10 × tests.work0 (failed, transient-error)" in text
    assert "… and 700 of 70 other kinds." in text
    assert len(text) < 20_000


def test_the_notice_shows_no_password_of_an_address_and_no_line_of_another() -> None:
    text = text_of([group(example="amqp://user:hunter2@host/ is away\n\nTo: everybody")], 1, now())
    assert "hunter2" not in text
    assert "amqp://***@host/ is away To: everybody" in text
