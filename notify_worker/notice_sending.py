"""A message to a person: claimed, sent outside of any transaction, and noted. Once a notice.

What cannot be excluded is a crash between the provider's yes and the note of it. The message is then sent once more,
under the same Message-ID.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from control import telemetry
from control.bus.names import CATALOGUE
from control.bus.outcome import ledger_is_away
from control.errors import AfterliveError, RecipientRefused, SenderRefused
from control.ledger import notices, outbox, tasks
from control.ledger.engine import Ledger, open_ledger
from control.ledger.notice_models import Notice
from control.settings import current

log = logging.getLogger("afterlive.notices")
Send = Callable[[Notice], str | None]
_HOST: Final = socket.gethostname()[:100]
_BORN: Final = secrets.token_hex(8)
# Less than the claim lasts: whoever takes it over then knows nothing of what was sent.
_NOTING_SECONDS: Final = 90.0
_PAUSE_SECONDS: Final = 1.0


def deliver(ledger: Ledger, notice_id: str, send: Send) -> None:
    """Send the notice by `send`, which answers the provider's id. What has ended is not sent again, and what another
    may still be at comes back when its claim has run out.

    A refusal is an end like any other, noted on the notice. Raises SenderUnavailable, and whatever else `send` raises:
    the base task tries again.
    """
    with ledger.write() as session:
        claimed = claim(session, notice_id)
    if claimed is None:
        tasks.once(ledger, lambda session: _look_again(session, notice_id))
        return
    effect = attempt(ledger, claimed, send)
    # Noted in any case: a second delivery of this task may have had the task's one effect, which was to wait.
    noted(lambda: tasks.once(ledger, effect) or write(ledger, effect))


class Claimed(NamedTuple):
    """A notice that is this process' to send, and the reason its address takes no mail, where there is one."""

    notice: Notice
    suppressed: str | None


def claim(session: Session, notice_id: str) -> Claimed | None:
    """None where it has ended, or another is at it."""
    notice = notices.sending(session, notice_id, by=me(), gone=is_gone)
    if notice is None:
        return None
    known = notices.suppressed(session, notice) if notice.channel == "mail" else None
    return Claimed(notice, known.reason if known else None)


def attempt(ledger: Ledger, claimed: Claimed, send: Send) -> Callable[[Session], None]:
    """Try to send a notice that is claimed; what to note of it. Raises as `deliver`, with the claim given back."""
    notice = claimed.notice
    if claimed.suppressed:
        return _end(notice, "suppressed", f"This address takes no mail ({claimed.suppressed}).")
    try:
        provider_id = send(notice)
    except BaseException as error:
        # That we are not let in is no word on this message: it is reviewed, and sent when that is mended.
        if isinstance(error, SenderRefused) and not error.facts.get("every"):
            return _refused(notice, error)
        reason = error.detail if isinstance(error, AfterliveError) else type(error).__name__
        write(ledger, lambda session: notices.released(session, notice.id, reason))
        raise
    telemetry.NOTICES.labels(notice.channel, notice.template, "sent").inc()
    return lambda session: notices.sent(session, notice.id, provider_id)


def give_up(payload: dict[str, Any], error: BaseException) -> None:
    """For the base task: it was the last try. Replayed from `failed_tasks` the notice is tried again."""
    reason = error.detail if isinstance(error, AfterliveError) else type(error).__name__
    ledger = open_ledger(current().ledger.url)
    with ledger.write() as session:
        notice = notices.load(session, payload["notice_id"])
        notices.failed(session, notice.id, reason)
    telemetry.NOTICES.labels(notice.channel, notice.template, "failed").inc()


def _refused(notice: Notice, error: SenderRefused) -> Callable[[Session], None]:
    gone = isinstance(error, RecipientRefused)
    log.warning("notice %s (%s) was refused: %s", notice.id, notice.template, error.detail)
    effect = _end(notice, "bounced" if gone else "failed", error.detail)
    if notice.channel != "mail" or not error.facts.get("gone"):
        return effect

    def suppress(session: Session) -> None:
        effect(session)
        notices.suppress(session, notice.to, "bounced")

    return suppress


def _end(notice: Notice, state: str, problem: str) -> Callable[[Session], None]:
    telemetry.NOTICES.labels(notice.channel, notice.template, state).inc()
    return lambda session: notices.failed(session, notice.id, problem, state)


def _look_again(session: Session, notice_id: str) -> None:
    found = notices.load(session, notice_id)
    if found.state == "sending":
        payload = {"notice_id": found.id, "about": found.about}
        outbox.add(session, CATALOGUE[found.task], payload, delay_seconds=notices.LEASE.total_seconds() + 1)


def write(ledger: Ledger, effect: Callable[[Session], None]) -> bool:
    """`effect` in a transaction; True."""
    with ledger.write() as session:
        effect(session)
    return True


def noted(note: Callable[[], object]) -> None:
    """What was sent must be known to be: an outage of the ledger is waited out."""
    until = time.monotonic() + _NOTING_SECONDS
    while True:
        try:
            note()
        except Exception as error:
            if not ledger_is_away(error) or time.monotonic() > until:
                raise
            log.warning("a message was sent, and the ledger is away; the note of it waits")
            time.sleep(_PAUSE_SECONDS)
        else:
            return


# --- whose claim it is ----------------------------------------------------------------------------------------------


def me() -> str:
    """This process, unlike any other, before or after."""
    return f"{_HOST}/{os.getpid()}/{_BORN}"


def is_gone(process: str) -> bool:
    """Whether a process is known to be no more. Of another machine's nothing is known."""
    parts = process.rsplit("/", 2)
    if len(parts) != len(("host", "pid", "born")) or parts[0] != _HOST or not parts[1].isdigit():
        return False
    pid = int(parts[1])
    if pid == os.getpid():
        return parts[2] != _BORN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
