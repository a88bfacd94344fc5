"""The gateways' notices: each is stored once, before the gateway is told so, and read once, by a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from control.bus.names import PROCESS_PAYMENT_WEBHOOK
from control.errors import NoticeUnreadable
from control.gateways.base import Received, TradeReport
from control.ledger import outbox
from control.ledger.base import insert_new, now
from control.ledger.payment_models import PaymentNotice
from control.ledger.payment_reports import hear

_NOTICES: Final = cast(Table, PaymentNotice.__table__)
_NEW: Final = insert_new(PaymentNotice, "id", "id")
_READ: Final = (
    update(_NOTICES)
    .where(_NOTICES.c.id == bindparam("notice_id"), _NOTICES.c.processed_at.is_(None))
    .values(processed_at=bindparam("at"), outcome=bindparam("came_of_it"))
)
_MOST_AGAIN: Final = 500
Told = tuple[str, Received]
"""The gateway's name, and what it told."""


def keep(session: Session, told: Sequence[Told]) -> list[bool]:
    """Store notices and have them read; which of them were new. Three statements, however many they are: this is
    `control.ledger.group`'s, and most of what a small fact costs is statements."""
    at = now()
    # In one order, whoever stores several: so none wait for each other.
    rows = {
        one.id: {"id": one.id, "gateway": gateway, "trade_no": one.trade_no, "fields": one.fields, "received_at": at}
        for gateway, one in sorted(told, key=lambda pair: pair[1].id)
    }
    connection = session.connection()
    new = set(connection.execute(_NEW[connection.dialect.name], list(rows.values())).scalars())
    for notice_id in new:
        _have_read(session, notice_id, str(rows[notice_id]["trade_no"]))
    return [one.id in new for _, one in told]


def process(
    session: Session,
    notice_id: str,
    read: Callable[[str, Mapping[str, str]], TradeReport],
    *,
    accept_simulated: bool = False,
) -> str | None:
    """Have the notice its effect; what came of it (`payment_reports.hear`), None where it had it before. `read` makes a
    report of a gateway's fields."""
    notice = session.get(PaymentNotice, notice_id)
    if notice is None or notice.processed_at is not None:
        return None
    try:
        outcome = hear(session, read(notice.gateway, notice.fields), accept_simulated=accept_simulated)
    except NoticeUnreadable:
        outcome = "unreadable"
    # Only now: the order comes first, whoever locks several.
    session.connection().execute(_READ, {"notice_id": notice_id, "at": now(), "came_of_it": outcome})
    return outcome


def of_trade(session: Session, trade_no: str) -> Sequence[PaymentNotice]:
    """In the order they came."""
    query = select(PaymentNotice).where(PaymentNotice.trade_no == trade_no)
    return session.scalars(query.order_by(PaymentNotice.received_at, PaymentNotice.id)).all()


def resend(session: Session, seconds: float) -> int:
    """Have those read that were stored so long ago and never were: their task failed, or was lost."""
    old = select(PaymentNotice.id, PaymentNotice.trade_no).where(
        PaymentNotice.processed_at.is_(None), PaymentNotice.received_at < now() - timedelta(seconds=seconds)
    )
    found = session.execute(old.order_by(PaymentNotice.received_at).limit(_MOST_AGAIN)).all()
    for notice_id, trade_no in found:
        _have_read(session, notice_id, trade_no)
    return len(found)


def _have_read(session: Session, notice_id: str, trade_no: str) -> None:
    outbox.add(session, PROCESS_PAYMENT_WEBHOOK, {"notice_id": notice_id, "trade_no": trade_no})
