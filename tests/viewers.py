"""Viewers and buyers of a stream, for tests of what is counted."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select

from control.bus import names
from control.ledger import analytics
from control.ledger.analytics import View
from control.ledger.engine import Ledger
from control.ledger.figures import StreamFigures
from control.ledger.models import OutboxRow, Stream
from notify_worker.analytics.aggregate import count

BEGIN: Final = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GRACE_SECONDS: Final = 60
_KINDS: Final = {"j": "join", "h": "heartbeat", "l": "leave"}


def at(seconds: float) -> datetime:
    """So long after the stream began."""
    return BEGIN + timedelta(seconds=seconds)


def stream(
    ledger: Ledger,
    stream_id: str = "s",
    *,
    seller_id: str | None = "kiln",
    begin: datetime = BEGIN,
    seconds: float = 600,
) -> None:
    """A stream that ended; with `seconds` 0 it did not."""
    end = begin + timedelta(seconds=seconds) if seconds else None
    made = Stream(id=stream_id, title=f"Stream {stream_id}", seller_id=seller_id, recording="a.mp4")
    made.state, made.created_at, made.ended_at = "ended" if end else "live", begin, end
    with ledger.write() as session:
        session.add(made)


def views(text: str, begin: datetime = BEGIN) -> list[View]:
    """`a0j a30h b10j`: viewer, second of the stream, join, heartbeat or leave."""
    words = [(word[:1], float(word[1:-1]), word[-1]) for word in text.split()]
    return [
        View(f"{who}-{second:g}-{kind}", who, _KINDS[kind], begin + timedelta(seconds=second))
        for who, second, kind in words
    ]


def watch(ledger: Ledger, events: Sequence[View], stream_id: str = "s") -> int:
    """How many of the events are new."""
    with ledger.write() as session:
        return analytics.record_views(session, stream_id, events)


def sell(
    ledger: Ledger,
    order_id: str,
    seconds: float,
    amount_minor: int,
    *,
    stream_id: str | None = "s",
    seller_id: str = "kiln",
    currency: str = "TWD",
    begin: datetime = BEGIN,
) -> None:
    with ledger.write() as session:
        analytics.record_sale(
            session,
            order_id=order_id,
            stream_id=stream_id,
            seller_id=seller_id,
            amount_minor=amount_minor,
            currency=currency,
            items=1,
            at=begin + timedelta(seconds=seconds),
        )


def refund(ledger: Ledger, order_id: str, moment: datetime) -> None:
    with ledger.write() as session:
        analytics.record_refund(session, order_id=order_id, at=moment)


def counted(ledger: Ledger, stream_id: str = "s") -> StreamFigures:
    """Count the stream; what came of it."""
    count(ledger, stream_id, grace_seconds=GRACE_SECONDS)
    return figures(ledger, stream_id)


def figures(ledger: Ledger, stream_id: str = "s") -> StreamFigures:
    """As they are in the ledger."""
    with ledger.read() as session:
        row = analytics.get(session, stream_id)
    assert row
    return StreamFigures.model_validate(row.data)


def asked_for(ledger: Ledger) -> int:
    """How many counts wait in the outbox."""
    with ledger.read() as session:
        mine = OutboxRow.task == names.AGGREGATE_STREAM_ANALYTICS.name
        return session.scalar(select(func.count()).select_from(OutboxRow).where(mine)) or 0


def in_batches(events: Iterable[View], chance: random.Random) -> list[list[View]]:
    """All of them, some twice, in any order, cut anywhere."""
    everything = list(events)
    everything += chance.sample(everything, len(everything) // 3)
    chance.shuffle(everything)
    batches = []
    while everything:
        size = chance.randint(1, 20)
        batches.append(everything[:size])
        everything = everything[size:]
    return batches
