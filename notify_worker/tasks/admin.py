"""What the administrators are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from control.bus import names
from control.bus.context import current_delivery
from control.bus.task import task
from control.ledger import failures
from control.ledger.base import now
from control.ledger.engine import open_ledger
from control.ledger.failures import Group
from control.settings import current
from notify_worker.senders import Mail, mail_sender

_MOST_KINDS: Final = 30


@task(names.SEND_ADMIN_NOTIFICATION)
def send_admin_notification() -> None:
    """One mail of all failures nobody was told of, by kind."""
    settings = current()
    ledger = open_ledger(settings.ledger.url)
    at = now()
    with ledger.read() as session:
        groups = failures.untold(session, at)
    if not groups:
        return
    delivery = current_delivery()
    name = delivery.task_id if delivery else f"{at.timestamp():.0f}"
    total = sum(group.count for group in groups)
    subject = f"[afterlive] {total} task{'s' if total > 1 else ''} failed"
    mail = Mail(tuple(settings.notify.admins), subject, _text(groups, total, at), f"<{name}@afterlive.invalid>")
    mail_sender(settings.notify).send(mail)
    with ledger.write() as session:
        failures.told(session, at)


def _text(groups: Sequence[Group], total: int, at: datetime) -> str:
    lines = [f"{total} failed since the last mail, as of {at:%Y-%m-%d %H:%M:%S} UTC.", ""]
    for group in groups[:_MOST_KINDS]:
        span = f"{group.first_at:%H:%M:%S}–{group.last_at:%H:%M:%S}"
        lines.append(f"{group.count:6} × {group.task} ({group.reason}, {group.code}) {span}")
        lines.append(f"         {group.example[:300]}")
    if len(groups) > _MOST_KINDS:
        lines.append(f"… and {len(groups) - _MOST_KINDS} other kinds.")
    lines += ["", "To see them: afterlive failed list", "To do one again: afterlive failed replay ID"]
    return "\n".join(lines)
