"""What the administrators are told: few mails, all of it, and nothing that is nobody's business."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from control.bus import names
from control.bus.context import Delivery, working_on
from control.bus.embedded import Embedded
from control.bus.publish import send
from control.bus.task import task_of
from control.errors import ConfigurationError, InputError, SenderRefused, SenderUnavailable
from control.ledger import failures, tasks
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.task_models import FailedTask, ScheduleRow, TaskRow
from control.settings import NotifySettings, Settings, current, use
from notify_worker.tasks import admin
from pipelines.cleanup import forget_tasks
from tests.bus import catalogued, spec_of, until
from tests.mail import MailServer, mail_server, plain

NOTICE = names.SEND_ADMIN_NOTIFICATION
QUARTER = timedelta(minutes=15)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, settings: Settings, server: MailServer) -> Iterator[Ledger]:
    """Of both kinds; the one of the settings in use, which send mails to `server`."""
    url = settings.ledger.url
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").database()
    ledger_settings = settings.ledger.model_copy(update={"url": url})
    use(settings.model_copy(update={"ledger": ledger_settings, "notify": by(server)}))
    made = Ledger(url)
    made.upgrade()
    yield made
    made.close()


def by(server: MailServer, *admins: str) -> NotifySettings:
    return NotifySettings(
        _env_file=None,
        admins=list(admins or ["ops@example.com"]),
        mail_url=SecretStr(f"smtp://127.0.0.1:{server.port}"),
    )


def fail(ledger: Ledger, number: int = 1, **changes: Any) -> None:
    """So many tasks failed finally."""
    with ledger.write() as session:
        for _ in range(number):
            made = uuid.uuid4().hex
            facts: dict[str, Any] = {
                "origin": made, "task_id": made, "task": "tests.work", "queue": names.DEFAULT, "payload": {},
                "reason": "failed", "code": "transient-error", "detail": "The carrier is busy.", "attempts": 3,
                "failed_at": datetime.now(UTC),
            }  # fmt: skip
            assert failures.note(session, FailedTask(**(facts | changes)))


def planned(ledger: Ledger) -> list[OutboxRow]:
    with ledger.read() as session:
        return list(session.scalars(select(OutboxRow).where(OutboxRow.task == NOTICE.name).order_by(OutboxRow.id)))


def notify(row: OutboxRow) -> None:
    """As a worker does it."""
    with working_on(Delivery(str(row.task_id), NOTICE.name, NOTICE.queue, None, 1)):
        admin.send_admin_notification.body()


def later(ledger: Ledger, by: timedelta) -> None:
    """So much time passes."""
    with ledger.write() as session:
        for row in session.scalars(select(ScheduleRow)):
            row.last_run_at -= by


# --- how often --------------------------------------------------------------------------------------------------------


def test_however_many_failures_are_one_mail(ledger: Ledger, server: MailServer) -> None:
    fail(ledger, 140)
    fail(ledger, 60, task="tests.other", code="recording-unusable", detail="The recording cannot be used.")
    (row,) = planned(ledger)
    assert 5 <= (row.available_at - row.created_at).total_seconds() <= 15  # what follows at once is gathered
    notify(row)
    (mail,) = server.mails
    assert mail["Subject"] == "[afterlive] 200 tasks failed"
    text = plain(mail)
    assert "   140 × tests.work (failed, transient-error)" in text
    assert "    60 × tests.other (failed, recording-unusable)" in text
    assert text.index("tests.work") < text.index("tests.other")  # most first
    notify(row)  # it came twice
    assert len(server.mails) == 1
    with ledger.read() as session:
        told = tasks.get(session, str(row.task_id))
    assert told is not None
    assert told.state == "SUCCESS"


def test_the_next_is_a_quarter_of_an_hour_later(ledger: Ledger, server: MailServer) -> None:
    fail(ledger)
    (first,) = planned(ledger)
    notify(first)
    later(ledger, timedelta(seconds=11))  # the time that was gathered is over
    fail(ledger, 5)
    fail(ledger, 5)
    _, second = planned(ledger)
    assert second.available_at - first.available_at > QUARTER - timedelta(seconds=30)
    notify(second)
    assert [mail["Subject"] for mail in server.mails] == ["[afterlive] 1 task failed", "[afterlive] 10 tasks failed"]
    later(ledger, timedelta(hours=1))
    fail(ledger)
    third = planned(ledger)[-1]
    assert (third.available_at - third.created_at).total_seconds() < 15  # after a quiet hour it is told of at once


def test_what_is_noted_while_the_mail_is_sent_is_told_of_next(
    ledger: Ledger, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even by a process whose clock is behind, so that it took this notice for its own."""
    fail(ledger)
    (row,) = planned(ledger)
    later(ledger, timedelta(seconds=11))
    sending = admin._send

    def slow(*arguments: Any) -> None:
        with ledger.write() as session:
            session.add(
                FailedTask(
                    id="fail_meanwhile", origin="m", task_id="m", task="tests.meanwhile", queue=names.DEFAULT,
                    reason="failed", code="c", detail="d", attempts=1, state="open",
                    failed_at=datetime.now(UTC), received_at=datetime.now(UTC) - timedelta(minutes=1),
                )
            )  # fmt: skip
        sending(*arguments)

    monkeypatch.setattr(admin, "_send", slow)
    notify(row)
    monkeypatch.undo()
    notify(planned(ledger)[-1])
    assert [mail["Subject"] for mail in server.mails] == ["[afterlive] 1 task failed"] * 2
    assert "tests.meanwhile" in plain(server.mails[1])
    assert len(planned(ledger)) == 2


def test_nothing_to_tell_is_no_mail(ledger: Ledger, server: MailServer) -> None:
    with ledger.write() as session:
        failures.notify(session)
    (row,) = planned(ledger)
    notify(row)
    assert server.mails == []
    assert len(planned(ledger)) == 1


# --- the mail server --------------------------------------------------------------------------------------------------


def test_the_same_mail_has_the_same_id(ledger: Ledger, server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database went away between the mail and the note of it: it comes twice, and a mailbox can tell."""
    fail(ledger)
    (row,) = planned(ledger)

    def away(*_: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(failures, "told", away)
        with pytest.raises(ConnectionError):
            notify(row)
    notify(row)
    assert len({mail["Message-ID"] for mail in server.mails}) == 1
    assert len(server.mails) == 2


def test_a_mail_server_that_is_away_is_tried_again(ledger: Ledger, server: MailServer) -> None:
    fail(ledger)
    (row,) = planned(ledger)
    server.says["MAIL"] = "451 later"
    with pytest.raises(SenderUnavailable) as caught:
        notify(row)
    assert caught.value.retryable
    server.says.clear()
    notify(row)
    assert len(server.mails) == 1


def test_away_for_longer_than_the_tries_took_it_is_told_a_quarter_later(ledger: Ledger, server: MailServer) -> None:
    """Even where nothing fails any more."""
    fail(ledger)
    later(ledger, timedelta(seconds=11))
    admin._later({}, SenderUnavailable(channel="mail", reason="away"))
    admin._later({}, SenderUnavailable(channel="mail", reason="away"))
    first, second = planned(ledger)
    assert second.available_at - first.available_at > QUARTER - timedelta(seconds=30)
    notify(second)
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    "error", [SenderRefused(channel="mail", reason="550"), ConfigurationError(setting="s", reason="r")]
)
def test_a_refusal_is_final(ledger: Ledger, error: Exception) -> None:
    fail(ledger)
    later(ledger, timedelta(hours=1))
    admin._later({}, error)
    assert len(planned(ledger)) == 1


def test_a_notice_that_failed_is_noted_and_notifies_nobody(ledger: Ledger, server: MailServer) -> None:
    fail(ledger, task=NOTICE.name)
    assert planned(ledger) == []
    fail(ledger)
    (row,) = planned(ledger)
    fail(ledger, task=NOTICE.name)
    notify(row)
    # Those who can be reached again should know that they could not.
    assert "     2 × notify.send_admin_notification" in plain(server.mails[0])
    assert len(planned(ledger)) == 1


def test_with_nobody_to_tell_it_is_in_the_log(
    ledger: Ledger, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = by(server).model_copy(update={"admins": []})
    use(current().model_copy(update={"notify": nobody}))
    fail(ledger)
    notify(planned(ledger)[0])
    assert server.mails == []
    assert "1 task failed" in caplog.text


# --- secrets, and the whole way ---------------------------------------------------------------------------------------


def test_no_argument_and_no_unforeseen_error_s_words_are_in_it(ledger: Ledger, server: MailServer) -> None:
    fail(ledger, payload={"phone": "0912-345-678"}, traceback="code = 735912")
    fail(ledger, code="internal-error", detail="INSERT … ('hunter2')", exception="sqlalchemy.exc.DataError")
    notify(planned(ledger)[0])
    text = plain(server.mails[0])
    for secret in ("0912-345-678", "735912", "hunter2"):
        assert secret not in text
    assert "sqlalchemy.exc.DataError" in text
    assert "The carrier is busy." in text


def test_embedded_from_the_failure_to_the_mail(
    settings: Settings, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through base task, clerk, ledger, outbox and the notify tier's own task; the server is away at first."""
    monkeypatch.setattr(failures, "_GATHER", timedelta(seconds=0.5))
    monkeypatch.setattr("control.bus.outcome.backoff_seconds", lambda *_: 1.0)
    server.says["MAIL"] = "451 later"
    spec = spec_of(secret=frozenset({"code"}))

    def body(code: str) -> None:
        server.says.clear()
        raise InputError(source=f"code {code}", reason="no such number")

    running = Embedded(settings.model_copy(update={"notify": by(server)}), ["notify_worker.tasks"])
    with catalogued(spec):
        task_of(running.app, spec, body)
        with running:
            send(running.app, spec, {"code": "735912"})
            until(lambda: server.mails, "the mail", seconds=20)
    (mail,) = server.mails
    assert mail["To"] == "ops@example.com"
    assert "735912" not in mail.as_string()
    assert "code *** cannot be used" in plain(mail)


def test_a_refusal_is_reviewed_like_any_failure_and_plans_nothing(
    settings: Settings, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_GATHER", timedelta(seconds=0.1))
    server.says["MAIL"] = "550 not you"
    ledger = Ledger(settings.ledger.url)
    ledger.upgrade()
    fail(ledger)
    with Embedded(settings.model_copy(update={"notify": by(server)}), ["notify_worker.tasks"]):
        until(lambda: NOTICE.name in _failed(ledger), "it is given up at once")
    with ledger.read() as session:
        row = next(row for row in failures.page(session, limit=10) if row.task == NOTICE.name)
    assert (row.code, row.attempts) == ("sender-refused", 1)
    assert planned(ledger) == []
    ledger.close()


def _failed(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as session:
        return failures.open_by_task(session)


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_what_nobody_asks_for_any_more_is_forgotten(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cleanup._BATCH", 2)
    ago = datetime.now(UTC) - timedelta(days=8)
    long_ago = datetime.now(UTC) - timedelta(days=91)
    kept = ["young", "running", "of-a-failure"]
    with ledger.write() as session:
        for number in range(5):
            _ended(session, f"old-{number}", ago)
        _ended(session, "young", ago + timedelta(days=2))
        _ended(session, "of-a-failure", ago)
        session.add(TaskRow(**tasks.pending("running", NOTICE, None, ago)))
        session.add(TaskRow(**tasks.pending("never-told", NOTICE, None, long_ago)))
    for name in ("open", "young-one", "seen-to-yesterday", "discarded", "replayed"):
        fail(ledger, task_id="of-a-failure" if name == "open" else name, origin=name)
    with ledger.write() as session:
        rows = {row.origin: row for row in session.scalars(select(FailedTask))}
        for name in ("discarded", "seen-to-yesterday", "young-one"):
            failures.discard(session, rows[name].id, "ann", "of no use")
        rows["replayed"].state = "replayed"
        for name in rows:
            rows[name].received_at = long_ago if name != "young-one" else ago
        for action in failures.actions(session, rows["discarded"].id):
            action.at = long_ago
    checked: list[int] = []
    assert forget_tasks(ledger, lambda: checked.append(1)) == (6, 2)
    assert len(checked) == 6 + 3  # and once each for messages to people, those to other systems, and nodes
    assert forget_tasks(ledger) == (0, 0)
    with ledger.read() as session:
        assert {row.origin for row in session.scalars(select(FailedTask))} == {"open", "young-one", "seen-to-yesterday"}
        assert all(tasks.get(session, name) for name in kept)
        # A replay of one that had its effect after all, and may have it once: the inbox knows it still.
        assert failures.get(session, rows["open"].id).state == "open"


def _ended(session: Any, task_id: str, at: datetime) -> None:
    session.add(TaskRow(**tasks.pending(task_id, NOTICE, None, at) | {"state": "SUCCESS", "finished_at": at}))
