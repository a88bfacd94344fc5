"""A chunk of a bulk send: so many mails in a row, and then the worker is free until the provider takes more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from sqlalchemy.orm import Session

from control import telemetry
from control.bus.context import current_delivery
from control.errors import SenderUnavailable
from control.ledger import bulks, notices, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.notice_models import Notice
from control.settings import NotifySettings
from notify_worker.mails import in_bulk
from notify_worker.notice_sending import Send, attempt, claim, me, noted, write
from notify_worker.senders import MailSender
from notify_worker.senders.smtp import SmtpSender

_SECONDS: Final = 20.0
"""After this long a chunk ends, however many it has left: others want the worker."""
_STUMBLES: Final = 3
"""In a row: it is not this mail, it is the server."""


def send_chunk(
    ledger: Ledger, bulk_id: str, settings: NotifySettings, sender: MailSender, check: Callable[[], None]
) -> None:
    """Send the next of the bulk send, and plan the chunk after it. `check` is called between mails, and may raise."""
    delivery = current_delivery()
    by = delivery.task_id if delivery else me()
    provider = settings.mail_url.get_secret_value().partition(":")[0]
    with ledger.write() as session:
        bulk = bulks.get(session, bulk_id)
        running = bulk.state == "running"
        # A chunk goes out as fast as it can: more than a second's worth would be faster than the provider allows.
        size = min(settings.bulk_chunk, math.ceil(settings.bulk_per_second))
        wait = bulks.take_turn(session, provider, by, size / settings.bulk_per_second) if running else 0.0
        ids = bulks.chunk(session, bulk_id, size) if running and not wait else []
    if wait:
        tasks.once(ledger, lambda session: bulks.send_next(session, bulk_id, delay_seconds=wait))
        return
    if not running:
        tasks.once(ledger, lambda session: bulks.went_on(session, bulk_id, sent=0, stumbled=False, free_at=now()))
        return
    with _many(sender) as kept_open:
        sent, stumbled = _send_all(ledger, ids, in_bulk(settings, bulk.content, kept_open), check)

    def over(session: Session) -> None:
        free_at = bulks.end_turn(session, provider, by)
        bulks.went_on(session, bulk_id, sent=sent, stumbled=stumbled, free_at=free_at)

    tasks.once(ledger, over)


def _send_all(ledger: Ledger, ids: Sequence[str], send: Send, check: Callable[[], None]) -> tuple[int, bool]:
    """How many were sent, or need not be sent any more; and whether any could not be."""
    sent = stumbles = in_a_row = 0
    until = time.monotonic() + _SECONDS
    for notice_id in ids:
        check()
        if time.monotonic() > until:
            break
        with ledger.write() as session:
            claimed = claim(session, notice_id)
        if claimed is None:
            continue  # cancelled, or another delivery of this chunk has it
        try:
            effect = attempt(ledger, claimed, send)
        except SenderUnavailable as error:
            stumbles, in_a_row = stumbles + 1, in_a_row + 1
            if claimed.notice.attempts >= bulks.MOST_TRIES:
                _give_up(ledger, claimed.notice, error)
            if in_a_row >= _STUMBLES:
                break
            continue
        _note(ledger, effect)
        sent, in_a_row = sent + 1, 0
    return sent, bool(stumbles)


def _many(sender: MailSender) -> AbstractContextManager[MailSender]:
    """By one connection, where it is a matter of connections."""
    return sender.many() if isinstance(sender, SmtpSender) else nullcontext(sender)


def _give_up(ledger: Ledger, notice: Notice, error: SenderUnavailable) -> None:
    telemetry.NOTICES.labels(notice.channel, notice.template, "failed").inc()
    write(ledger, lambda session: notices.failed(session, notice.id, error.detail))


def _note(ledger: Ledger, effect: Callable[[Session], None]) -> None:
    noted(lambda: write(ledger, effect))
