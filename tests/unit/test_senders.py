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
from notify_worker.tasks.admin import alert_of

SETTINGS = NotifySettings(_env_file=None)
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


@pytest.mark.parametrize(
    "url", ["mailto:x", "smtp://", "smtp://user:hunter2@host:port", "http://host", "", "outbox:", "ses:", "ses:nowhere"]
)
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


def test_a_mail_with_html_has_both_and_says_how_to_end_it() -> None:
    message = made(mail(html="<p>秋</p>", unsubscribe="https://shop.example/no?a=1"))
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert message["List-Unsubscribe"] == "<https://shop.example/no?a=1>"
    assert message.as_bytes().isascii()
    assert made(mail(unsubscribe="https://x>\r\nBcc: b"))["List-Unsubscribe"] is None


def test_the_log_shows_an_address_in_part(caplog: pytest.LogCaptureFixture) -> None:
    ConsoleSender().send(mail(to=("mei@example.com",)))
    assert "mail to m•••@example.com: a subject" in caplog.text
    assert "mei@" not in caplog.text


def test_in_an_outbox_a_mail_can_be_looked_at_and_is_there_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sender = mail_sender(NotifySettings(_env_file=None, mail_url=SecretStr(f"outbox:{tmp_path / 'box'}")))
    assert sender.send(mail(html="<p>秋</p>")) == sender.send(mail(html="<p>秋</p>"))
    sender.send(mail(message_id="<2@example.com>"))
    files = {path.suffix: path for path in sorted((tmp_path / "box").iterdir(), reverse=True)}
    assert len(list((tmp_path / "box").iterdir())) == 3 + 2
    assert files[".html"].read_text() == "<p>秋</p>"
    assert files[".txt"].read_text() == "a subject\n\na text"
    assert b"To: ops@example.com" in files[".eml"].read_bytes()
    assert "ops@" not in caplog.text


def test_the_notice_is_short_however_much_failed() -> None:
    groups = [group(task=f"tests.work{number}", example="x" * 5000, count=10) for number in range(100)]
    text = alert_of(groups, 1000, now(), SETTINGS).text
    assert text.startswith("1000 failed since the last mail")
    assert "    10 × tests.work0 (failed, transient-error)" in text
    assert "… and 700 of 70 other kinds." in text
    assert len(text) < 20_000


def test_the_notice_shows_no_password_of_an_address_and_no_line_of_another() -> None:
    text = alert_of([group(example="amqp://user:hunter2@host/ is away\n\nTo: everybody")], 1, now(), SETTINGS).text
    assert "hunter2" not in text
    assert "amqp://***@host/ is away To: everybody" in text
