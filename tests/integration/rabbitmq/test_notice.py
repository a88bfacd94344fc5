"""Two hundred failures on the real bus: one mail."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from control.bus import names
from control.ledger import failures
from control.ledger.models import OutboxRow
from tests import chores
from tests.integration.rabbitmq.conftest import Works
from tests.mail import mail_server, plain

FAILURES = 200


@pytest.mark.slow  # what test_admin_notice shows on the embedded bus, of a thousand
def test_two_hundred_failures_are_one_mail(works: Works) -> None:
    with mail_server() as server:
        mails = {
            "AFTERLIVE_NOTIFY_ADMINS": '["ops@example.com"]',
            "AFTERLIVE_NOTIFY_MAIL_URL": f"smtp://127.0.0.1:{server.port}",
        }
        # All have failed before anybody takes note of it: a slow machine must not make two mails of them.
        fast = works.platform.worker("fast")
        for number in range(FAILURES - 50):
            works.send(chores.FAIL, number=number, code=f"secret-{number}")
        for number in range(50):
            works.send(chores.STUMBLE, number=number)
        works.until(lambda: fast.said().count("outcome=failed") == FAILURES, "all failed")
        works.platform.worker("notify", **mails)
        works.until(lambda: server.mails, "the mail")
        with works.ledger.read() as session:
            assert sum(failures.open_by_task(session).values()) == FAILURES
            planned = select(OutboxRow).where(OutboxRow.task == names.SEND_ADMIN_NOTIFICATION.name)
            assert session.scalars(planned).all() == []  # nor is there another to come
        (mail,) = server.mails
    assert mail["Subject"] == f"[afterlive] {FAILURES} tasks failed"
    text = plain(mail)
    assert "   150 × tests.fail (failed, recording-unusable)" in text
    assert "    50 × tests.stumble (failed, recording-unusable)" in text
    assert "secret-" not in text
