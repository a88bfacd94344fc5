"""What the administrators are told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from control.bus import names
from control.bus.context import current_delivery
from control.bus.task import task
from control.errors import AfterliveError
from control.ledger import failures, tasks
from control.ledger.base import now
from control.ledger.engine import open_ledger
from control.ledger.failures import Group
from control.settings import NotifySettings, current
from notify_worker.senders import ConsoleSender, Mail, mail_sender

_MOST_KINDS: Final = 30
_LONGEST: Final = 300
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]+@")


def _later(payload: dict[str, Any], error: BaseException) -> None:  # noqa: ARG001  (the base task's)
    """The mail server was away for longer than the tries took. The failures wait for the next notice, which is planned
    as any other: not of this task's own failure, which is of no use to who cannot be reached."""
    if isinstance(error, AfterliveError) and not error.retryable:
        return
    with open_ledger(current().ledger.url).write() as session:
        failures.notify(session)


@task(names.SEND_ADMIN_NOTIFICATION, gave_up=_later)
def send_admin_notification() -> None:
    """One mail of all failures nobody was told of, by kind."""
    settings = current()
    ledger = open_ledger(settings.ledger.url)
    with ledger.read() as session:
        found = failures.untold(session)
    if found.groups:
        _send(settings.notify, found.groups)
    tasks.once(ledger, lambda session: failures.told(session, found.ids))


def _send(settings: NotifySettings, groups: Sequence[Group]) -> None:
    at, total = now(), sum(group.count for group in groups)
    delivery = current_delivery()
    # The same where the same is sent again, and another where more has failed since.
    name = f"{delivery.task_id if delivery else f'{at.timestamp():.0f}'}.{total}"
    subject = f"[afterlive] {total} task{'s' if total > 1 else ''} failed"
    mail = Mail(tuple(settings.admins), subject, text_of(groups, total, at), f"<{name}@afterlive.invalid>")
    sender = mail_sender(settings) if settings.admins else ConsoleSender()
    sender.send(mail)


def text_of(groups: Sequence[Group], total: int, at: datetime) -> str:
    """The mail: a kind of failure in two lines. No arguments, no traceback."""
    lines = [f"{total} failed since the last mail, as of {at:%Y-%m-%d %H:%M:%S} UTC.", ""]
    for group in groups[:_MOST_KINDS]:
        span = f"{group.first_at:%H:%M:%S}–{group.last_at:%H:%M:%S}"
        lines.append(f"{group.count:6} × {_fit(group.task)} ({group.reason}, {_fit(group.code)}) {span}")
        lines.append(f"         {_fit(group.example)}")
    if len(groups) > _MOST_KINDS:
        others = sum(group.count for group in groups[_MOST_KINDS:])
        lines.append(f"… and {others} of {len(groups) - _MOST_KINDS} other kinds.")
    lines += ["", "To see them: afterlive failed list", "To do one again: afterlive failed replay ID"]
    return "\n".join(lines)


def _fit(text: str) -> str:
    """One line, not long, and no password of an address."""
    return _PASSWORD.sub("***@", " ".join(text.split()))[:_LONGEST]
