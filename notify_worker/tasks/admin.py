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
from notify_worker.rendering import Rendered, render
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
    made = alert_of(groups, total, at, settings)
    mail = Mail(tuple(settings.admins), made.subject, made.text, f"<{name}@afterlive.invalid>", html=made.html)
    sender = mail_sender(settings) if settings.admins else ConsoleSender()
    sender.send(mail)


def alert_of(groups: Sequence[Group], total: int, at: datetime, settings: NotifySettings) -> Rendered:
    """The mail: a kind of failure in two lines. No arguments, no traceback."""
    shown, rest = groups[:_MOST_KINDS], groups[_MOST_KINDS:]
    kinds = [
        {
            "count": group.count,
            "task": _fit(group.task),
            "reason": group.reason,
            "code": _fit(group.code),
            "span": f"{group.first_at:%H:%M:%S}–{group.last_at:%H:%M:%S}",
            "example": _fit(group.example),
        }
        for group in shown
    ]
    data = {"total": total, "at": f"{at:%Y-%m-%d %H:%M:%S}", "groups": kinds, "other_kinds": len(rest)}
    return render("admin_alert", settings.admin_locale, data | {"others": sum(group.count for group in rest)}, settings)


def _fit(text: str) -> str:
    """One line, not long, and no password of an address."""
    return _PASSWORD.sub("***@", " ".join(text.split()))[:_LONGEST]
