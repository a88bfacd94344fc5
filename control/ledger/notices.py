"""Messages to people: asked for once a business key, claimed by who sends them, and how each ended.

What the templates of `notify_worker/templates` want as `data` (money in minor units, times as ISO 8601, all JSON):

    welcome               name
    order_confirmation    order_id, total_minor, currency, lines: [{name, quantity, unit_price_minor}]
    payment_confirmation  order_id, amount_minor, currency, paid_at
    abandoned_cart        as order_confirmation
    order_status (sms)    order_id, state
    replay_ready          stream_id, title
    daily_report          day, sales: [{currency, amount_minor, orders, items}], streams: [{title, viewers, orders}];
                          and, where known, the rest of `control.ledger.reports.by_mail`
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, Update, bindparam, delete, select, text, update
from sqlalchemy.orm import Session

from control.bus.names import CATALOGUE, TaskSpec
from control.errors import NotFound
from control.ledger import outbox
from control.ledger.base import ID_LENGTH, LOCK, insert_into, insert_new, new_id, now
from control.ledger.notice_models import KEY_LENGTH, UNFINISHED, Contact, Notice, Suppression

LOCALES: Final = ("zh-TW", "en")
FINAL: Final = ("sent", "failed", "bounced", "suppressed", "cancelled")
UNSUBSCRIBED: Final = "unsubscribed"
LEASE: Final = timedelta(minutes=2)
"""Who has claimed a message has sent it well within this, or is gone."""
_LONGEST_PROBLEM: Final = 300
# Longer than all tries of one take, and than a queue should be.
_LATE: Final = timedelta(minutes=30)
_MOST: Final = 500
_CLAIM: Final = (
    update(Notice)
    .where(Notice.id == bindparam("notice_id"), Notice.state.in_(("pending", "failed")))
    .values(state="sending", claimed_at=bindparam("at"), claimed_by=bindparam("by"), attempts=Notice.attempts + 1)
    .returning(Notice)
)
_TABLE: Final = cast(Table, Notice.__table__)
_NEW: Final = insert_new(Notice, "key", "id", "key")


def request(
    session: Session,
    spec: TaskSpec,
    *,
    key: str,
    to: str | None,
    template: str,
    locale: str,
    data: dict[str, Any],
    about: str,
    channel: str = "mail",
) -> str | None:
    """Have `template` sent to the address or number `to` by the task `spec`, once this transaction is committed; the
    notice's id. None where there is nobody to send to, or `key` was asked for before."""
    asked = Asked(spec, key, to, template, data, channel)
    return next(iter(request_all(session, [asked], locale=locale, about=about)), None)


class Asked(NamedTuple):
    """One notice of several about the same, as `request` has it."""

    spec: TaskSpec
    key: str
    to: str | None
    template: str
    data: dict[str, Any]
    channel: str = "mail"


def request_all(session: Session, asked: Sequence[Asked], *, locale: str, about: str) -> list[str]:
    """As `request`, of several in one statement; the ids of those there are."""
    about = about[:ID_LENGTH]
    rows = [
        {
            "key": fit_key(one.key), "channel": one.channel, "task": one.spec.name, "template": one.template,
            "locale": locale if locale in LOCALES else "en", "to": one.to, "data": one.data, "about": about,
        }
        for one in asked
        if one.to
    ]  # fmt: skip
    specs = {fit_key(one.key): one.spec for one in asked}
    added = _insert(session, rows) if rows else []
    for notice_id, key in added:
        outbox.add(session, specs[key], {"notice_id": notice_id, "about": about})
    return [notice_id for notice_id, _ in added]


def add_all(session: Session, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Store notices (columns by name); the ids of those whose key is new."""
    return [notice_id for notice_id, _ in _insert(session, rows)]


def _insert(session: Session, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Id and key of those whose key is new."""
    at = now()
    fresh = {"state": "pending", "attempts": 0, "created_at": at, "queued_at": at, "bulk_id": None}
    made = [{"id": new_id("ntc"), **fresh, **row} for row in rows]
    connection = session.connection()
    return [(row.id, row.key) for row in connection.execute(_NEW[connection.dialect.name], made)] if made else []


def fit_key(key: str) -> str:
    """A business key as it is stored: one that is too long, by its hash."""
    return key if len(key) <= KEY_LENGTH else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def load(session: Session, notice_id: str) -> Notice:
    """Raises NotFound."""
    found = session.get(Notice, notice_id, populate_existing=True)
    if found is None:
        raise NotFound(noun="notice", key=notice_id)
    return found


def of_key(session: Session, key: str) -> Notice:
    """The one of a business key. Raises NotFound."""
    found = session.scalars(select(Notice).where(Notice.key == fit_key(key))).one_or_none()
    if found is None:
        raise NotFound(noun="notice", key=key)
    return found


def about(session: Session, what: str, limit: int = 100) -> Sequence[Notice]:
    """Those about it, newest first."""
    query = select(Notice).where(Notice.about == what).order_by(Notice.id.desc()).limit(limit)
    return session.scalars(query).all()


# --- sending (notify_worker.notice_sending) -------------------------------------------------------------------------


def sending(
    session: Session, notice_id: str, *, by: str, gone: Callable[[str], bool] = lambda _: False
) -> Notice | None:
    """Claim it, for the process `by`; None where it has ended, or another that may still be at it has it. `gone` says
    which processes are known to be no more. One that failed can be claimed: somebody wants it tried again."""
    at = now()
    fresh = {"synchronize_session": False, "populate_existing": True}
    mine = {"notice_id": notice_id, "at": at, "by": by}
    taken: Notice | None = session.scalar(_CLAIM, mine, execution_options=fresh)
    if taken:
        return taken  # as nearly all are
    found = session.get(Notice, notice_id, populate_existing=True, with_for_update=LOCK)
    if found is None:
        raise NotFound(noun="notice", key=notice_id)
    lapsed = found.claimed_at is None or found.claimed_at < at - LEASE or gone(found.claimed_by or "")
    if found.state in ("pending", "failed") or (found.state == "sending" and lapsed):
        found.state, found.claimed_at, found.claimed_by = "sending", at, by
        found.attempts += 1
        return found
    return None


def sent(session: Session, notice_id: str, provider_id: str | None) -> None:
    """The provider took it."""
    fit = provider_id[:KEY_LENGTH] if provider_id else None
    _end(session, notice_id, "sent", ("sending", "failed", "pending"), provider_id=fit, sent_at=now(), problem=None)


def failed(session: Session, notice_id: str, problem: str, state: str = "failed") -> None:
    """It was not sent and is not tried again: failed, bounced or suppressed."""
    _end(session, notice_id, state, ("sending", "pending"), problem=problem[:_LONGEST_PROBLEM])


def released(session: Session, notice_id: str, problem: str) -> None:
    """It was not sent, and is to be tried again."""
    _end(session, notice_id, "pending", ("sending",), problem=problem[:_LONGEST_PROBLEM])


def _end(session: Session, notice_id: str, state: str, before: tuple[str, ...], **changes: Any) -> None:
    session.connection().execute(_ending(state, before, tuple(changes)), {"notice_id": notice_id, **changes})


@cache
def _ending(state: str, before: tuple[str, ...], changes: tuple[str, ...]) -> Update:
    mine = update(_TABLE).where(_TABLE.c.id == bindparam("notice_id"), _TABLE.c.state.in_(before))
    return mine.values(state=state, claimed_at=None, claimed_by=None, **{name: bindparam(name) for name in changes})


def send_lost(session: Session, *, bus_is_empty: bool = False) -> int:
    """Send those again that should have been sent long ago; how many. `bus_is_empty`: nothing the ledger believes to
    be on the bus is there."""
    at = now()
    late = Notice.queued_at <= (at if bus_is_empty else at - _LATE)
    query = select(Notice).where(text(UNFINISHED), late, Notice.bulk_id.is_(None)).order_by(Notice.queued_at)
    found = session.scalars(query.limit(_MOST).with_for_update(skip_locked=True)).all()
    for notice in found:
        notice.queued_at = at
        outbox.add(session, CATALOGUE[notice.task], {"notice_id": notice.id, "about": notice.about})
    return len(found)


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove those that were asked for before a moment and have ended, at most `limit`; how many."""
    ended = ~Notice.state.in_(("pending", "sending")) & (Notice.created_at < before)
    old = select(Notice.id).where(ended).order_by(Notice.created_at).limit(limit)
    return int(session.execute(delete(Notice).where(Notice.id.in_(old))).rowcount)  # type: ignore[attr-defined]


# --- addresses --------------------------------------------------------------------------------------------------------


def address_hash(address: str) -> str:
    """By which an address that takes no mail is known, without being kept."""
    return hashlib.sha256(address.strip().lower().encode()).hexdigest()


def suppress(session: Session, address: str, reason: str) -> None:
    """Send no more mail there. Who `unsubscribed` gets none in bulk; that a mailbox is gone weighs more."""
    row = insert_into(session, Suppression).values(address_hash=address_hash(address), reason=reason, at=now())
    weaker = Suppression.reason == UNSUBSCRIBED
    session.execute(
        row.on_conflict_do_update(index_elements=["address_hash"], set_={"reason": reason, "at": now()}, where=weaker)
    )


def lift(session: Session, address: str) -> None:
    """Mail is sent there again."""
    session.execute(delete(Suppression).where(Suppression.address_hash == address_hash(address)))


def suppressed(session: Session, notice: Notice) -> Suppression | None:
    """Why this mail is not sent to its address; None where it is."""
    found = session.get(Suppression, address_hash(notice.to))
    return None if found and found.reason == UNSUBSCRIBED and notice.bulk_id is None else found


def masked(address: str) -> str:
    """An address as people who look at notices see it: `w•••@example.com`, `+886•••678`."""
    name, at, domain = address.rpartition("@")
    if at:
        return f"{name[:1]}•••@{domain}"
    return f"{address[:4]}•••{address[-3:]}" if len(address) > 7 else "•••"


def contact(session: Session, seller_id: str | None) -> Contact | None:
    """Where the seller is told; None where that is not known."""
    return session.get(Contact, seller_id) if seller_id else None


def set_contact(session: Session, seller_id: str, *, email: str, name: str | None, locale: str) -> Contact:
    """From now on the seller is told there."""
    values = {"email": email, "name": name, "locale": locale, "updated_at": now()}
    row = insert_into(session, Contact).values(seller_id=seller_id, **values)
    session.execute(row.on_conflict_do_update(index_elements=["seller_id"], set_=values))
    return session.get_one(Contact, seller_id, populate_existing=True)
