"""Mails from the ledger to a real SMTP server: each once, whatever happens in between; and who may not be known from
the logs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from control.bus import names, outcome
from control.bus.app import NOTIFY, PIPELINES
from control.bus.context import Delivery, working_on
from control.bus.embedded import Embedded
from control.errors import SenderUnavailable
from control.ledger import failures, notices
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.notice_models import Notice
from control.ledger.task_models import FailedTask
from control.settings import Settings, use
from notify_worker.notice_sending import deliver
from notify_worker.tasks import email
from tests.bus import bus, until
from tests.mail import MailServer, mail_server

TO = "mei@example.com"
SPEC = names.SEND_WELCOME_EMAIL
_FIRST = "Your account is ready. From now on you can buy while a seller is live, and"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


@pytest.fixture
def mailing(settings: Settings, server: MailServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings in use that send mails to `server`; what is tried again is so at once."""
    monkeypatch.setattr(outcome, "backoff_seconds", lambda *_: 0.0)
    changes = {"mail_url": SecretStr(f"smtp://127.0.0.1:{server.port}"), "mail_from": "shop@example.com"}
    made = settings.model_copy(update={"notify": settings.notify.model_copy(update=changes)})
    use(made)
    return made


@contextmanager
def running(settings: Settings) -> Iterator[Embedded]:
    with bus(settings, modules=(PIPELINES, NOTIFY)) as made:
        yield made


def ask(ledger: Ledger, key: str = "welcome:u1", to: str = TO, locale: str = "en") -> str:
    with ledger.write() as session:
        made = notices.request(
            session, SPEC, key=key, to=to, template="welcome", locale=locale, data={"name": "Mei"}, about="u1"
        )
    assert made
    return made


def look(ledger: Ledger, notice_id: str) -> Notice:
    with ledger.read() as session:
        return notices.load(session, notice_id)


def ended(ledger: Ledger, notice_id: str) -> Notice:
    until(lambda: look(ledger, notice_id).state in notices.FINAL, "the notice has ended")
    return look(ledger, notice_id)


def failed_tasks(ledger: Ledger) -> list[FailedTask]:
    with ledger.read() as session:
        return list(session.scalars(select(FailedTask)))


@contextmanager
def message_of(notice_id: str) -> Iterator[dict[str, Any]]:
    """As a worker has it: the same message each time."""
    with working_on(Delivery(f"task-{notice_id}", SPEC.name, SPEC.queue, "u1", 1)):
        yield {"notice_id": notice_id, "about": "u1"}


# --- the way of one ---------------------------------------------------------------------------------------------------


def test_a_mail_is_sent_once_in_the_readers_language(
    mailing: Settings, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(mailing) as made:
        first, second = ask(made.ledger), ask(made.ledger, "welcome:u2", "lin@example.com", "zh-TW")
        assert (ended(made.ledger, first).state, ended(made.ledger, second).state) == ("sent", "sent")
        with message_of(first) as payload:
            email.send_welcome_email.body(**payload)  # it comes once more
        with message_of(first) as payload:
            email.send_welcome_email.body(**payload)
    english, chinese = sorted(server.mails, key=lambda mail: str(mail["Subject"]))
    assert (english["To"], english["From"], english["Subject"]) == (TO, "shop@example.com", "Welcome to Afterlive")
    assert chinese["Subject"] == "歡迎加入 Afterlive"
    text, html = english.get_body(("plain",)), chinese.get_body(("html",))
    assert text
    assert html
    assert text.get_content().splitlines()[:3] == ["Hello Mei,", "", _FIRST]
    assert "Mei 您好" in html.get_content()
    assert english["Message-ID"] != chinese["Message-ID"]
    assert "List-Unsubscribe" not in english
    ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]  # aiosmtpd's
    assert not [line for line in ours if "mei@" in line or "lin@" in line]
    assert [line for line in ours if f"task={SPEC.name}" in line]


def test_a_refusal_is_an_end_and_no_failed_task(mailing: Settings, server: MailServer) -> None:
    server.says = {TO: "550 5.1.1 no such mailbox", "full@example.com": "552 5.2.2 mailbox full"}
    with running(mailing) as made:
        gone, full = ask(made.ledger), ask(made.ledger, "welcome:u2", "full@example.com")
        assert (ended(made.ledger, gone).state, ended(made.ledger, full).state) == ("bounced", "bounced")
        server.says = {}
        again, room = ask(made.ledger, "other:u1"), ask(made.ledger, "other:u2", "full@example.com")
        assert (ended(made.ledger, again).state, ended(made.ledger, room).state) == ("suppressed", "sent")
        assert look(made.ledger, gone).attempts == 1
        assert failed_tasks(made.ledger) == []
    assert server.to == [["full@example.com"]]


def test_that_we_are_not_let_in_is_reviewed_and_no_end_of_the_mail(mailing: Settings, server: MailServer) -> None:
    server.says = {"MAIL": "550 5.7.1 not with this sender"}
    with running(mailing) as made:
        notice_id = ask(made.ledger)
        until(lambda: failed_tasks(made.ledger), "it is in failed_tasks")
        found = look(made.ledger, notice_id)
        assert (found.state, found.attempts) == ("failed", 1)


def test_what_the_server_does_not_take_now_is_tried_again(mailing: Settings, server: MailServer) -> None:
    server.says = {"DATA": "451 4.3.0 later"}
    with running(mailing) as made:
        notice_id = ask(made.ledger)
        until(lambda: look(made.ledger, notice_id).problem, "it was tried")
        server.says = {}
        found = ended(made.ledger, notice_id)
        assert (found.state, found.problem) == ("sent", None)
        assert found.attempts >= 2
        assert failed_tasks(made.ledger) == []
    assert len(server.mails) == 1


def test_after_the_last_try_it_is_reviewed_and_can_be_sent_after_all(mailing: Settings, server: MailServer) -> None:
    server.says = {"MAIL": "421 4.3.2 closing"}
    with running(mailing) as made:
        notice_id = ask(made.ledger)
        (failure,) = until(lambda: failed_tasks(made.ledger), "it is in failed_tasks", 15)
        found = look(made.ledger, notice_id)
        assert (found.state, found.attempts) == ("failed", 1 + SPEC.retry.times)
        assert TO not in f"{failure.payload}{failure.detail}{failure.traceback}{found.problem}"
        server.says = {}
        with made.ledger.write() as session:
            failures.replay(session, failure.id, "tests")
        until(lambda: look(made.ledger, notice_id).state == "sent", "it is sent after all")
    assert len(server.mails) == 1


# --- who dies, and who is slow ----------------------------------------------------------------------------------------

_DIES = """
import os, sys
from control.ledger.engine import Ledger
from notify_worker.notice_sending import deliver
deliver(Ledger(sys.argv[1]), sys.argv[2], lambda notice: os._exit(9))
"""


def test_of_a_worker_that_died_while_it_sent_another_takes_over_at_once(
    mailing: Settings, server: MailServer, ledger: Ledger
) -> None:
    notice_id = ask(ledger)
    died = subprocess.run([sys.executable, "-c", _DIES, ledger.url, notice_id], check=False, timeout=60)
    assert died.returncode == 9
    assert look(ledger, notice_id).state == "sending"
    with message_of(notice_id) as payload:
        email.send_welcome_email.body(**payload)
    found = look(ledger, notice_id)
    assert (found.state, found.attempts, len(server.mails)) == ("sent", 2, 1)


def test_while_one_sends_another_delivery_waits(mailing: Settings, ledger: Ledger) -> None:
    """A worker that is cut off from the bus goes on sending, while its message is given to another."""
    notice_id = ask(ledger)
    sends, may_end, sent = threading.Event(), threading.Event(), []

    def slow(notice: Notice) -> str:
        sends.set()
        assert may_end.wait(10)
        sent.append(notice.id)
        return "slow"

    def first() -> None:
        with message_of(notice_id):
            deliver(ledger, notice_id, slow)

    thread = threading.Thread(target=first)
    thread.start()
    assert sends.wait(10)
    with message_of(notice_id):
        deliver(ledger, notice_id, lambda _: pytest.fail("sent twice"))
    may_end.set()
    thread.join(10)
    assert (look(ledger, notice_id).provider_id, sent) == ("slow", [notice_id])
    with ledger.read() as session:
        *_, later = session.scalars(select(OutboxRow).order_by(OutboxRow.id))
    assert later.payload["notice_id"] == notice_id  # had the first died, this one would have sent it
    assert later.available_at - later.created_at > notices.LEASE


def test_sent_again_it_has_the_same_message_id(mailing: Settings, server: MailServer, ledger: Ledger) -> None:
    """The one case that cannot be excluded: the server took it, and the note of that was lost."""
    notice_id = ask(ledger)
    for _ in range(2):
        with message_of(notice_id) as payload:
            email.send_welcome_email.body(**payload)
        with ledger.write() as session:
            notices.load(session, notice_id).state = "pending"
    first, second = server.mails
    assert first["Message-ID"] == second["Message-ID"]


def test_an_error_nobody_foresaw_gives_the_claim_back(mailing: Settings, ledger: Ledger) -> None:
    notice_id = ask(ledger)

    def breaks(notice: Notice) -> str:
        raise KeyError(notice.to)

    with pytest.raises(KeyError):
        deliver(ledger, notice_id, breaks)
    found = look(ledger, notice_id)
    assert (found.state, found.problem) == ("pending", "KeyError")


def test_a_server_that_is_away_is_no_end(mailing: Settings, server: MailServer, ledger: Ledger) -> None:
    server.says = {TO: "451 4.7.1 greylisted"}
    notice_id = ask(ledger)
    with message_of(notice_id) as payload, pytest.raises(SenderUnavailable):
        email.send_welcome_email.body(**payload)
    assert look(ledger, notice_id).state == "pending"
