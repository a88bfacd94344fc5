"""The tables of webhooks to other systems."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base


class WebhookEndpoint(Base):
    """Where another system wants to be told: enabled or disabled, and in the end deleted."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("webhook_endpoints_by_seller", "state", "seller_id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    url: Mapped[str]
    events: Mapped[list[Any]]
    """Names of the events it is told of."""
    seller_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    """Only what is this seller's; None: everybody's."""
    description: Mapped[str | None]
    secret: Mapped[str]
    """As it is: it must sign. Empty once the endpoint is deleted."""
    previous_secret: Mapped[str | None]
    previous_until: Mapped[datetime | None]
    """Until when the secret before signs as well."""
    state: Mapped[str] = mapped_column(String(16))
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    """The first attempt that failed of those since the last that did not."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookDelivery(Base):
    """One event for one endpoint: pending, delivered, failed or discarded."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id", name="webhook_deliveries_once"),
        Index("webhook_deliveries_by_state", "endpoint_id", "state", "id"),
        Index("webhook_deliveries_by_claim", "endpoint_id", "claimed_until"),
        Index("webhook_deliveries_by_time", "state", "next_at"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    """The `webhook-id` its receiver knows it by, the same with each attempt."""
    event: Mapped[str] = mapped_column(String(64))
    about: Mapped[str] = mapped_column(String(ID_LENGTH))
    body: Mapped[str]
    """JSON, to the byte what is signed and sent."""
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    """How many there were; it never goes back, so that a message of an attempt that was made counts no more."""
    attempts_before: Mapped[int] = mapped_column(default=0)
    """How many of them were made before it was last asked for: the schedule begins anew with each time."""
    next_at: Mapped[datetime | None]
    """When the next attempt is due; None where none is."""
    waits_for_turn: Mapped[bool] = mapped_column(default=False)
    """Enough of the endpoint's are under way: the next of those that ends has this one sent."""
    claimed_until: Mapped[datetime | None]
    """Somebody sends it right now, and is gone if this is over."""
    last_status: Mapped[int | None]
    last_problem: Mapped[str | None]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
