"""Text messages: one-time passwords, and how an order stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Histogram

from control import telemetry
from control.bus import names
from control.bus.context import current_delivery
from control.bus.task import task
from control.errors import OtpExpired
from control.ledger import otp, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger, open_ledger
from control.ledger.notice_models import Notice
from control.ledger.otp import ToSend
from control.ledger.otp_vault import need_vault
from control.settings import current
from notify_worker import notice_sending
from notify_worker.rendering import render
from notify_worker.senders.sms import sms_sender

OTP_SECONDS: Final = Histogram(
    "afterlive_otp_seconds",
    "From a code's being asked for to a provider's being given it",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
_under_way: set[str] = set()
_lock = threading.Lock()


@task(names.SEND_OTP_SMS)
def send_otp_sms(otp_id: str, sealed: str) -> None:
    """Send the code, unless it was sent or is over.

    What has been sent is noted after it was: who is killed exactly in between sends it once more, to the same phone
    with the same code. Noted before, the code would be lost instead.
    """
    settings = current()
    ledger = open_ledger(settings.ledger.url)
    vault = need_vault(settings.otp.secret)
    with _alone(sealed) as alone:
        if not alone:
            telemetry.DUPLICATES.labels(names.SEND_OTP_SMS.name).inc()
            return
        try:
            with ledger.read() as session:
                found = otp.to_send(session, vault, otp_id, sealed)
        except OtpExpired:
            _drop(ledger)
            return
        if found is None:
            tasks.once(ledger, lambda _: None)
            return
        text = text_of(found)
        OTP_SECONDS.observe((now() - found.created_at).total_seconds())
        # Another code under the same id is another message.
        key = f"{otp_id}-{found.code_hash[:12]}"
        provider, provider_id = sms_sender(settings.notify).send_by(found.phone, text, key)
        tasks.once(ledger, lambda session: otp.sent(session, otp_id, found.code_hash, provider, provider_id))


def text_of(found: ToSend) -> str:
    """One line, as short as one text message."""
    seconds = (found.expires_at - found.created_at).total_seconds()
    made = render("otp", found.locale, {"code": found.code, "minutes": int(seconds // 60)})
    return " ".join(made.text.split())


@task(names.SEND_ORDER_STATUS_SMS, gave_up=notice_sending.give_up)
def send_order_status_sms(notice_id: str, about: str) -> None:  # noqa: ARG001  (by which people ask for it)
    """Tell a buyer how an order stands."""
    settings = current()

    def send(notice: Notice) -> str:
        made = render(notice.template, notice.locale, notice.data, settings.notify)
        return sms_sender(settings.notify).send(notice.to, " ".join(made.text.split()), notice.id)

    notice_sending.deliver(open_ledger(settings.ledger.url), notice_id, send)


def _drop(ledger: Ledger) -> None:
    """Too late is of no use to anybody: it is counted, as the base task does with what it need not even begin."""
    telemetry.EXPIRED.labels(names.SEND_OTP_SMS.name).inc()
    if delivery := current_delivery():
        with ledger.write() as session:
            tasks.finish(session, delivery.task_id, "EXPIRED")


@contextmanager
def _alone(sealed: str) -> Iterator[bool]:
    """Whether no other thread is at it: a message that comes twice may do so at the same moment."""
    with _lock:
        alone = sealed not in _under_way
        if alone:
            _under_way.add(sealed)
    try:
        yield alone
    finally:
        if alone:
            with _lock:
                _under_way.discard(sealed)
