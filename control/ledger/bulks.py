"""One text to many: a notice each, sent chunk by chunk at the provider's pace; all bulk sends together keep to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import Conflict, NotFound
from control.ledger import notices, outbox
from control.ledger.base import LOCK, insert_into, now
from control.ledger.notice_models import Bulk, Notice, Pace

MOST_TRIES: Final = 6
"""Of one mail of a bulk send."""
_LONGEST_PAUSE_SECONDS: Final = 600.0
_FIRST_PAUSE_SECONDS: Final = 10.0
_LATE: Final = timedelta(minutes=30)
TURN: Final = timedelta(minutes=2)
"""Who has the turn is done with its chunk well within this, or is gone."""


def create(session: Session, bulk_id: str, content: dict[str, Any], recipients: Sequence[dict[str, Any]]) -> Bulk:
    """A bulk send with its notices, and its first chunk on its way. An address that is there twice gets one mail. The
    same id with the same content again is the same one; with other content, a Conflict.

    `content`: template and data, or subject, text and html; locale, unsubscribe. A recipient: email, and optionally
    name and locale.
    """
    told = json.dumps([content, list(recipients)], sort_keys=True, ensure_ascii=True)
    fingerprint = hashlib.sha256(told.encode()).hexdigest()
    row = insert_into(session, Bulk).values(
        id=bulk_id,
        fingerprint=fingerprint,
        content=content,
        state="running",
        stumbles=0,
        created_at=now(),
        queued_at=now(),
    )
    new = session.scalar(row.on_conflict_do_nothing(index_elements=["id"]).returning(Bulk.id))
    if new is None:
        known = get(session, bulk_id)
        if known.fingerprint != fingerprint:
            raise Conflict(reason=f"There is a bulk send {bulk_id} already, with other content.")
        return known
    notices.add_all(session, [_notice(bulk_id, content, recipient) for recipient in recipients])
    send_next(session, bulk_id)
    return get(session, bulk_id)


def _notice(bulk_id: str, content: dict[str, Any], recipient: dict[str, Any]) -> dict[str, Any]:
    address = recipient["email"]
    return {
        "key": notices.fit_key(f"bulk:{bulk_id}:{notices.address_hash(address)}"),
        "channel": "mail",
        "task": names.SEND_BULK_EMAIL.name,
        "template": content.get("template") or "bulk",
        "locale": recipient.get("locale") or content["locale"],
        "to": address,
        "about": bulk_id,
        "data": {"name": recipient.get("name") or ""},
        "bulk_id": bulk_id,
    }


def get(session: Session, bulk_id: str, *, lock: bool = False) -> Bulk:
    """Raises NotFound."""
    found = session.get(Bulk, bulk_id, populate_existing=True, with_for_update=LOCK if lock else None)
    if found is None:
        raise NotFound(noun="bulk send", key=bulk_id)
    return found


def counts(session: Session, bulk_id: str) -> dict[str, int]:
    """How many of its mails are in each state."""
    query = select(Notice.state, func.count()).where(Notice.bulk_id == bulk_id).group_by(Notice.state)
    return {state: number for state, number in session.execute(query)}  # noqa: C416  (dict() has no type for rows)


def cancel(session: Session, bulk_id: str) -> Bulk:
    """Send no more of it. Cancelling twice is the same as once; one that is done is a Conflict."""
    found = get(session, bulk_id, lock=True)
    if found.state == "done":
        raise Conflict(reason=f"The bulk send {bulk_id} is done.")
    if found.state == "running":
        found.state, found.finished_at = "cancelled", now()
        _drop(session, bulk_id)
    return found


def _drop(session: Session, bulk_id: str) -> None:
    mine = update(Notice).where(Notice.bulk_id == bulk_id, Notice.state == "pending")
    session.execute(mine.values(state="cancelled"))


# --- chunks (notify_worker.bulk_sending) ----------------------------------------------------------------------------


def send_next(session: Session, bulk_id: str, *, delay_seconds: float = 0) -> None:
    """Have a chunk sent."""
    due = now() + timedelta(seconds=delay_seconds)
    session.execute(update(Bulk).where(Bulk.id == bulk_id).values(queued_at=due))
    outbox.add(session, names.SEND_BULK_EMAIL, {"bulk_id": bulk_id}, delay_seconds=delay_seconds)


def chunk(session: Session, bulk_id: str, size: int) -> list[str]:
    """The next to send, those that were tried least first. Those somebody else has claimed are among them: they may
    never have been sent (`notices.sending` knows)."""
    open_ = (Notice.bulk_id == bulk_id) & Notice.state.in_(("pending", "sending"))
    return list(session.scalars(select(Notice.id).where(open_).order_by(Notice.attempts, Notice.id).limit(size)))


def take_turn(session: Session, provider: str, by: str, seconds: float) -> float:
    """0.0: it is the turn of `by`, and the next is `seconds` from now, or when this one is over (`end_turn`). Else how
    many seconds to wait."""
    at = now()
    first = insert_into(session, Pace).values(provider=provider, free_at=at)
    session.execute(first.on_conflict_do_nothing(index_elements=["provider"]))
    pace = session.get_one(Pace, provider, with_for_update=LOCK, populate_existing=True)
    if pace.held_by not in (None, by) and pace.held_until and pace.held_until > at:
        # Whoever has it tells when it is over, but not whom; asking is cheap.
        return max(1.0, (pace.free_at - at).total_seconds())
    if pace.free_at > at and pace.held_by != by:
        return (pace.free_at - at).total_seconds()
    pace.free_at, pace.held_by, pace.held_until = at + timedelta(seconds=seconds), by, at + TURN
    return 0.0


def end_turn(session: Session, provider: str, by: str) -> datetime:
    """It is over; when the next is."""
    pace = session.get_one(Pace, provider, with_for_update=LOCK, populate_existing=True)
    if pace.held_by == by:
        pace.held_by = pace.held_until = None
    return pace.free_at


def went_on(session: Session, bulk_id: str, *, sent: int, stumbled: bool, free_at: datetime) -> None:
    """A chunk is over: the next is planned, or the bulk send is done."""
    found = get(session, bulk_id, lock=True)
    if found.state != "running":
        _drop(session, bulk_id)  # one was being tried when the others were
        return
    found.stumbles = 0 if sent or not stumbled else found.stumbles + 1
    left = counts(session, bulk_id)
    if left.get("pending"):
        pause = 0.0
        if found.stumbles:
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (found.stumbles - 1), _LONGEST_PAUSE_SECONDS)
        send_next(session, bulk_id, delay_seconds=max(pause, (free_at - now()).total_seconds(), 0.0))
    elif left.get("sending"):
        send_next(session, bulk_id, delay_seconds=notices.LEASE.total_seconds() + 1)
    else:
        found.state, found.finished_at = "done", now()


def send_lost(session: Session, *, bus_is_empty: bool = False) -> int:
    """Have those go on whose next chunk was due long ago; how many. `bus_is_empty`: as notices.send_lost."""
    at = now()
    late = Bulk.queued_at <= (at if bus_is_empty else at - _LATE)
    query = select(Bulk.id).where(Bulk.state == "running", late).with_for_update(skip_locked=True)
    found = session.scalars(query).all()
    for bulk_id in found:
        send_next(session, bulk_id)
    return len(found)
