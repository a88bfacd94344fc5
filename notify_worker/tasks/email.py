"""Mails to buyers and sellers: each a notice of the ledger, and what its template says; and those that go to many."""

from __future__ import annotations

from typing import Any, Final

from control.bus import names
from control.bus.names import TaskSpec
from control.bus.task import task
from control.bus.work import Work
from control.ledger.engine import open_ledger
from control.settings import current
from notify_worker.bulk_sending import send_chunk
from notify_worker.mails import by_mail
from notify_worker.notice_sending import deliver, give_up
from notify_worker.senders import mail_sender

MAILS: Final = (
    names.SEND_WELCOME_EMAIL,
    names.SEND_ORDER_CONFIRMATION_EMAIL,
    names.SEND_PAYMENT_CONFIRMATION_EMAIL,
    names.SEND_REPLAY_READY_EMAIL,
    names.SEND_ABANDONED_CART_EMAIL,
    names.SEND_DAILY_REPORT_EMAIL,
)


def send_mail(notice_id: str, about: str) -> None:  # noqa: ARG001  (by it people find the task)
    """Send one notice by mail."""
    settings = current()
    deliver(open_ledger(settings.ledger.url), notice_id, by_mail(settings.notify))


def _mail_task(spec: TaskSpec) -> Any:
    return task(spec, gave_up=give_up)(send_mail)


(
    send_welcome_email,
    send_order_confirmation_email,
    send_payment_confirmation_email,
    send_replay_ready_email,
    send_abandoned_cart_email,
    send_daily_report_email,
) = map(_mail_task, MAILS)


@task(names.SEND_BULK_EMAIL)
def send_bulk_email(bulk_id: str, work: Work) -> None:
    """Send the next chunk of a bulk send."""
    settings = current()
    send_chunk(open_ledger(settings.ledger.url), bulk_id, settings.notify, mail_sender(settings.notify), work.check)
