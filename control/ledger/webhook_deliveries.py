"""Webhook deliveries: looked at, sent again because somebody asks, sent again because a message was lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session, aliased

from control.errors import Conflict, NotFound
from control.ledger import webhooks
from control.ledger.base import LOCK, now
from control.ledger.webhook_attempts import again
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint

# Longer than a queue that is not in trouble keeps a message.
_LATE: Final = timedelta(minutes=5)
MOST: Final = 500
"""At a time; the sweep sees to the others."""


def get(session: Session, delivery_id: str) -> WebhookDelivery:
    """Raises NotFound."""
    found = session.get(WebhookDelivery, delivery_id)
    if found is None:
        raise NotFound(noun="webhook delivery", key=delivery_id)
    return found


def page(
    session: Session, endpoint_id: str, *, limit: int, after: str | None = None, state: str | None = None
) -> Sequence[WebhookDelivery]:
    """Newest first, those older than `after`."""
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if after:
        query = query.where(WebhookDelivery.id < after)
    if state:
        query = query.where(WebhookDelivery.state == state)
    return session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)).all()


def replay(session: Session, delivery_id: str) -> WebhookDelivery:
    """Have it sent now: one that was delivered once more, one that failed after all, one that waits at once. Raises
    Conflict where its endpoint does not take any."""
    endpoint = _endpoint(session, get(session, delivery_id).endpoint_id)
    delivery = session.get_one(WebhookDelivery, delivery_id, populate_existing=True, with_for_update=LOCK)
    if endpoint.state != "enabled" or delivery.state == "discarded":
        raise Conflict(reason=f"The webhook endpoint {endpoint.id} is {endpoint.state}: enable it first.")
    _send_now(session, delivery)
    return delivery


def replay_failed(session: Session, endpoint_id: str, since: datetime | None) -> int:
    """Have all sent that failed and were made since a moment, the oldest first, at most MOST; how many."""
    endpoint = _endpoint(session, endpoint_id)
    if endpoint.state != "enabled":
        raise Conflict(reason=f"The webhook endpoint {endpoint_id} is {endpoint.state}: enable it first.")
    failed = (WebhookDelivery.endpoint_id == endpoint_id) & (WebhookDelivery.state == "failed")
    query = select(WebhookDelivery).where(failed).order_by(WebhookDelivery.id).limit(MOST)
    if since is not None:
        query = query.where(WebhookDelivery.created_at >= since)
    found = session.scalars(query.with_for_update(key_share=True)).all()
    for delivery in found:
        _send_now(session, delivery)
    return len(found)


def send_pending(session: Session, endpoint_id: str) -> None:
    """Its endpoint was enabled: what waited is sent, from the start of the schedule; the first of them now, the others
    by the sweep."""
    pending = (WebhookDelivery.endpoint_id == endpoint_id) & (WebhookDelivery.state == "pending")
    query = select(WebhookDelivery).where(pending).order_by(WebhookDelivery.id).with_for_update(key_share=True)
    for number, delivery in enumerate(session.scalars(query).all()):
        again(delivery)
        delivery.waits_for_turn = False
        if number < MOST:
            webhooks.send(session, delivery.id, delivery.attempts)


def send_lost(session: Session, *, bus_is_empty: bool = False) -> int:
    """Send those again that should have been sent long ago; how many. `bus_is_empty`: an in-process broker has just
    started, so nothing is under way, whatever the ledger believes."""
    at = now()
    other = aliased(WebhookDelivery)
    busy = exists().where(other.endpoint_id == WebhookDelivery.endpoint_id, other.claimed_until > at)
    enabled = select(WebhookEndpoint.id).where(WebhookEndpoint.state == "enabled")
    query = select(WebhookDelivery).where(
        WebhookDelivery.state == "pending",
        WebhookDelivery.next_at <= (at if bus_is_empty else at - _LATE),
        WebhookDelivery.endpoint_id.in_(enabled),
    )
    if not bus_is_empty:
        # Who waits for a turn gets it from those under way; who is being sent is not lost.
        query = query.where(~(WebhookDelivery.waits_for_turn & busy))
        query = query.where(WebhookDelivery.claimed_until.is_(None) | (WebhookDelivery.claimed_until < at))
    found = session.scalars(query.order_by(WebhookDelivery.id).limit(MOST).with_for_update(skip_locked=True)).all()
    for delivery in found:
        delivery.next_at, delivery.waits_for_turn = at, False
        if bus_is_empty:
            delivery.claimed_until = None
        webhooks.send(session, delivery.id, delivery.attempts)
    return len(found)


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove those made before a moment that are not pending, at most `limit`; how many."""
    old = select(WebhookDelivery.id).where(WebhookDelivery.created_at < before, WebhookDelivery.state != "pending")
    gone = session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old.limit(limit))))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def _endpoint(session: Session, endpoint_id: str) -> WebhookEndpoint:
    """For this transaction alone to decide on; also one that was deleted."""
    return session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True, with_for_update=LOCK)


def _send_now(session: Session, delivery: WebhookDelivery) -> None:
    again(delivery)
    webhooks.send(session, delivery.id, delivery.attempts)
