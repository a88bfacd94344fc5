"""Webhook endpoints: registered, changed, disabled and enabled, given a new secret, deleted."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from control.errors import Conflict, NotFound
from control.ledger import webhooks
from control.ledger.base import LOCK, new_id, now
from control.ledger.webhook_deliveries import send_pending
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint

_SECRET_BYTES: Final = 32
_BOTH_SIGN: Final = timedelta(hours=24)
"""Long enough for a receiver to take the new secret over."""


def create(
    session: Session, *, url: str, events: Sequence[str], seller_id: str | None = None, description: str | None = None
) -> WebhookEndpoint:
    """A new endpoint, enabled, with a secret of its own. The URL is one that was checked (`webhook_urls`)."""
    at = now()
    made = WebhookEndpoint(
        id=new_id("whe"),
        url=url,
        events=list(events),
        seller_id=seller_id,
        description=description,
        secret=_new_secret(),
        state="enabled",
        created_at=at,
        updated_at=at,
    )
    session.add(made)
    session.flush()
    return made


def get(session: Session, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """Raises NotFound, also of one that was deleted."""
    options: dict[str, Any] = {"populate_existing": True, "with_for_update": LOCK} if lock else {}
    found = session.get(WebhookEndpoint, endpoint_id, **options)
    if found is None or found.state == "deleted":
        raise NotFound(noun="webhook endpoint", key=endpoint_id)
    return found


def page(
    session: Session, *, limit: int, after: str | None = None, seller_id: str | None = None
) -> Sequence[WebhookEndpoint]:
    """Newest first, those older than `after`."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.state != "deleted")
    if after:
        query = query.where(WebhookEndpoint.id < after)
    if seller_id:
        query = query.where(WebhookEndpoint.seller_id == seller_id)
    return session.scalars(query.order_by(WebhookEndpoint.id.desc()).limit(limit)).all()


def change(session: Session, endpoint_id: str, changes: dict[str, Any]) -> WebhookEndpoint:
    """Some of url, events, description and state; the state `enabled` or `disabled`. Enabled again, it gets what was
    pending."""
    endpoint = get(session, endpoint_id, lock=True)
    before = endpoint.state
    for name, value in changes.items():
        setattr(endpoint, name, value)
    endpoint.updated_at = now()
    if endpoint.state == "disabled" and before == "enabled":
        endpoint.disabled_reason = "somebody disabled it"
    if endpoint.state == "enabled" and before != "enabled":
        endpoint.disabled_reason = endpoint.failing_since = None
        session.flush()
        send_pending(session, endpoint_id)
    return endpoint


def rotate_secret(session: Session, endpoint_id: str) -> WebhookEndpoint:
    """A new secret. What is sent within the next 24 hours is signed with the one before as well."""
    endpoint = get(session, endpoint_id, lock=True)
    at = now()
    endpoint.previous_secret, endpoint.previous_until = endpoint.secret, at + _BOTH_SIGN
    endpoint.secret, endpoint.updated_at = _new_secret(), at
    return endpoint


def remove(session: Session, endpoint_id: str) -> None:
    """It gets nothing any more, and its secrets are gone. Its deliveries stay to be looked at."""
    endpoint = get(session, endpoint_id, lock=True)
    endpoint.state, endpoint.updated_at = "deleted", now()
    endpoint.secret, endpoint.previous_secret, endpoint.previous_until = "", None, None
    pending = (WebhookDelivery.endpoint_id == endpoint_id) & (WebhookDelivery.state == "pending")
    session.execute(update(WebhookDelivery).where(pending).values(state="discarded", next_at=None))


def test(session: Session, endpoint_id: str) -> str:
    """Have it sent a `webhook.test`; the delivery's id. Raises Conflict where it is disabled."""
    endpoint = get(session, endpoint_id, lock=True)
    if endpoint.state != "enabled":
        raise Conflict(reason=f"The webhook endpoint {endpoint_id} is disabled.")
    known_as = webhooks.event_id(webhooks.TEST, endpoint_id, secrets.token_hex(8))
    data = {"endpoint_id": endpoint_id}
    return webhooks.tell(session, [endpoint], webhooks.TEST, known_as, about=endpoint_id, data=data)[0]


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"
