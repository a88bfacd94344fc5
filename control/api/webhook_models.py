"""What crosses the HTTP API of webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from control.api.models import NO_NUL, Body, Identifier

Event = Literal["replay.playable", "replay.completed", "replay.failed", "order.paid", "payment.failed"]
State = Literal["enabled", "disabled"]
DeliveryState = Literal["pending", "delivered", "failed", "discarded"]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=NO_NUL)]
Description = Annotated[str, StringConstraints(max_length=300, pattern=NO_NUL)]
Events = Annotated[list[Event], Field(min_length=1, max_length=20)]
_URL: Any = Field(
    description="https, no user name or password in it, and no host of a private network.",
    examples=["https://shop.example/hooks/afterlive"],
)
_EVENTS: Any = Field(description="What it is told of.", examples=[["replay.playable", "order.paid"]])


class EndpointCreate(Body):
    """Another system wants to be told."""

    url: Url = _URL
    events: Events = _EVENTS
    seller_id: Identifier | None = Field(
        None, description="Only what is this seller's; null: everybody's.", examples=["seller-42"]
    )
    description: Description | None = Field(None, examples=["The shop's own back end"])


class EndpointChange(Body):
    """What is to change; what is left out stays, and so do an address, events and a state that are null."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    state: State | None = Field(None, description="Enabled again, it gets what was pending.")

    def changes(self) -> dict[str, Any]:
        """By the columns' names."""
        given = self.model_dump(exclude_unset=True)
        changes = {name: value for name, value in given.items() if value is not None or name == "description"}
        if self.events:
            changes["events"] = sorted(set(self.events))
        return changes


class EndpointAnswer(BaseModel):
    """An endpoint, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["whe_019a3b5c7d8f2a4b"])
    url: str
    events: list[str]
    seller_id: str | None
    description: str | None
    state: State
    disabled_reason: str | None = Field(examples=["it answered 410 Gone"])
    failing_since: datetime | None = Field(description="Since when every attempt has failed.")
    created_at: datetime
    updated_at: datetime


class EndpointWithSecret(EndpointAnswer):
    """An endpoint and the secret that signs what it gets: shown this once."""

    secret: str = Field(examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])
    previous_until: datetime | None = Field(None, description="Until when the secret before signs as well.")


class EndpointPage(BaseModel):
    """One page of endpoints, newest first."""

    items: list[EndpointAnswer]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")


class DeliveryAnswer(BaseModel):
    """One event for one endpoint."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["whd_019a3b5c7d8f2a4b"])
    endpoint_id: str
    event_id: str = Field(description="The `webhook-id` header, the same with each attempt.")
    event: str = Field(examples=["order.paid"])
    about: str = Field(description="The id of what it happened to.", examples=["ord_019a3b5c7d8f2a4b"])
    state: DeliveryState
    attempts: int
    next_at: datetime | None = Field(description="When the next attempt is due; null: there is none.")
    last_status: int | None = Field(description="The HTTP status of the last answer.", examples=[503])
    last_problem: str | None = Field(examples=["it did not answer within 15 s"])
    created_at: datetime
    delivered_at: datetime | None


class DeliveryDetail(DeliveryAnswer):
    """The same, and what is sent."""

    body: str = Field(description="JSON, to the byte what is signed.")


class DeliveryPage(BaseModel):
    """One page of deliveries, newest first."""

    items: list[DeliveryAnswer]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")


class ReplayedAnswer(BaseModel):
    """How many will be sent again."""

    replayed: int
    more: bool = Field(description="Whether there may be more that failed: ask again.")
