"""Webhooks: what other systems are told of. `emit` decides, with the fact it tells of, who gets it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from control.bus import names
from control.ledger import outbox
from control.ledger.base import insert_into, new_id, now
from control.ledger.models import Replay, Stream
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint

EVENTS: Final = ("replay.playable", "replay.completed", "replay.failed", "order.paid", "payment.failed")
_THEIRS: Final = or_(WebhookEndpoint.seller_id.is_(None), WebhookEndpoint.seller_id == bindparam("seller_id"))
_ENABLED: Final = (
    select(WebhookEndpoint).where(WebhookEndpoint.state == "enabled", _THEIRS).order_by(WebhookEndpoint.id)
)
TEST: Final = "webhook.test"
"""What an endpoint gets when it is to be tried, whatever it asked for."""


def emit(session: Session, event: str, *, about: str, data: dict[str, Any], occurrence: str = "") -> None:
    """Have every enabled endpoint that asked for `event` told, once this transaction is committed.

    `about` is the id of what it happened to; told twice of the same event, `about` and `occurrence`, an endpoint gets
    it once. `data` is JSON that may leave the house; its `seller_id` decides which sellers' endpoints get it.
    """
    if event not in EVENTS:
        raise ValueError(f"{event} is not an event that others are told of")
    wanted = [one for one in session.scalars(_ENABLED, {"seller_id": data.get("seller_id")}) if event in one.events]
    if wanted:
        tell(session, wanted, event, event_id(event, about, occurrence), about=about, data=data)


def emit_of_replay(session: Session, event: str, replay: Replay, **more: Any) -> None:
    """As `emit`, of a replay: once a run. What it is and where it stands; no link, and nothing of the store."""
    stream = session.get_one(Stream, replay.stream_id)
    data: dict[str, Any] = {
        "stream_id": stream.id,
        "seller_id": stream.seller_id,
        "replay_id": replay.id,
        "run": replay.run,
        "state": replay.state,
        "playable_at": replay.playable_at.isoformat() if replay.playable_at else None,
        "finished_at": replay.finished_at.isoformat() if replay.finished_at else None,
    }
    if replay.problem_code:
        data["problem"] = {"code": replay.problem_code}
    emit(session, event, about=replay.id, data=data | more, occurrence=str(replay.run))


def event_id(event: str, about: str, occurrence: str) -> str:
    """The same for the same."""
    return f"evt_{hashlib.sha256(json.dumps([event, about, occurrence]).encode()).hexdigest()[:40]}"


def tell(
    session: Session,
    endpoints: Sequence[WebhookEndpoint],
    event: str,
    known_as: str,
    *,
    about: str,
    data: dict[str, Any],
) -> list[str]:
    """One delivery an endpoint, but for those that have one known as `known_as`; their ids."""
    at = now()
    body = json.dumps({"type": event, "timestamp": at.isoformat(), "data": data}, separators=(",", ":"))
    made = []
    for endpoint in endpoints:
        row = insert_into(session, WebhookDelivery).values(
            id=new_id("whd"),
            endpoint_id=endpoint.id,
            event_id=known_as,
            event=event,
            about=about,
            body=body,
            state="pending",
            attempts=0,
            attempts_before=0,
            next_at=at,
            waits_for_turn=False,
            created_at=at,
        )
        once = row.on_conflict_do_nothing(index_elements=["endpoint_id", "event_id"])
        delivery_id = session.scalar(once.returning(WebhookDelivery.id))
        if delivery_id is not None:
            send(session, delivery_id, 0)
            made.append(delivery_id)
    return made


def send(session: Session, delivery_id: str, attempt: int, *, delay_seconds: float = 0) -> None:
    """Have a delivery's next attempt made, the one that comes after `attempt` of them."""
    payload = {"delivery_id": delivery_id, "attempt": attempt}
    outbox.add(session, names.DELIVER_WEBHOOK, payload, delay_seconds=delay_seconds)
