"""Attempts to deliver a webhook: claimed, then made with no transaction open, then noted.

Of one endpoint only so many are under way; what comes beyond waits for its turn, and who ends sends the next. So one
that is slow holds up a thread or two, and no other endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control import telemetry
from control.bus import names
from control.errors import WebhookEndpointDisabled
from control.ledger import failures, webhooks
from control.ledger.base import LOCK, new_id, now
from control.ledger.task_models import FailedTask
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint

_JITTER: Final = 0.1
# Who sends has given up by then: the whole attempt is bounded, and looking a host up takes the system's resolver no
# longer than this.
_MARGIN_SECONDS: Final = 45.0
GONE: Final = 410


@dataclass(frozen=True)
class Policy:
    """How often, how long, how many at a time (control.settings.WebhookSettings)."""

    retry_seconds: Sequence[float]
    disable_seconds: float
    in_flight: int
    total_seconds: float


@dataclass(frozen=True)
class Attempt:
    """One that was claimed: what to send, to where, and what signs it."""

    delivery_id: str
    endpoint_id: str
    event_id: str
    url: str
    body: str
    secrets: tuple[str, ...]
    claim: datetime

    def __repr__(self) -> str:
        return f"Attempt({self.delivery_id})"  # no secret, no address, in any log


@dataclass(frozen=True)
class Outcome:
    """What came of it: the receiver's status, or why there is none."""

    status: int | None = None
    problem: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def claim(session: Session, delivery_id: str, attempt: int | None, policy: Policy) -> Attempt | None:
    """Become the one who makes the delivery's next attempt; None where it is not to be made now. `attempt`: of how many
    the message knew; None where somebody asked for it, whatever was before."""
    delivery, endpoint = _lock(session, delivery_id)
    if delivery is None or endpoint is None or not _is_wanted(delivery, attempt):
        return None
    if endpoint.state == "deleted":
        delivery.state, delivery.next_at = "discarded", None
        return None
    if delivery.state == "failed":
        again(delivery)
    if endpoint.state != "enabled":
        return None  # whoever enables it has it sent
    at = now()
    if delivery.claimed_until and delivery.claimed_until > at:
        # Somebody is at it, or was killed at it: the one has this come to nothing, the other to its turn.
        delay = (delivery.claimed_until - at).total_seconds() + 1
        webhooks.send(session, delivery_id, delivery.attempts, delay_seconds=delay)
        return None
    if _room(session, endpoint, policy) < 1:
        delivery.waits_for_turn = True
        return None
    delivery.waits_for_turn = False
    delivery.claimed_until = at + timedelta(seconds=policy.total_seconds + _MARGIN_SECONDS)
    secrets = [endpoint.secret]
    if endpoint.previous_secret and endpoint.previous_until and endpoint.previous_until > at:
        secrets.append(endpoint.previous_secret)
    return Attempt(
        delivery_id,
        endpoint.id,
        delivery.event_id,
        endpoint.url,
        delivery.body,
        tuple(secrets),
        delivery.claimed_until,
    )


def note(session: Session, made: Attempt, outcome: Outcome, policy: Policy) -> None:
    """What came of an attempt, and what follows: the next one later, none any more, or an endpoint that is disabled.
    Nothing where the claim had run out and somebody else has it."""
    delivery, endpoint = _lock(session, made.delivery_id)
    if delivery is None or endpoint is None or delivery.claimed_until != made.claim:
        return
    delivery.claimed_until = None
    delivery.attempts += 1
    delivery.last_status, delivery.last_problem = outcome.status, outcome.problem
    if endpoint.state == "deleted":
        delivery.state, delivery.next_at = "discarded", None
        return
    at = now()
    if outcome.delivered:
        delivery.state, delivery.delivered_at, delivery.next_at = "delivered", at, None
        endpoint.failing_since = None
    else:
        endpoint.failing_since = endpoint.failing_since or at
        _again_or_never(session, delivery, endpoint, policy)
        if endpoint.state == "enabled" and (reason := _why_disable(endpoint, outcome, policy)):
            _disable(session, endpoint, delivery, reason)
    telemetry.WEBHOOKS.labels(_told(delivery)).inc()
    session.flush()
    _next_ones(session, endpoint, policy)


def again(delivery: WebhookDelivery) -> None:
    """It is to be delivered after all, or once more: from the start of the schedule."""
    delivery.state, delivery.attempts_before, delivery.next_at = "pending", delivery.attempts, now()
    delivery.delivered_at = None


def wait_seconds(retry_seconds: Sequence[float], failed: int) -> float | None:
    """How long to wait after the `failed`th attempt that failed; None where that was the last. Up to a tenth more, so
    that what failed together does not come back together."""
    if failed > len(retry_seconds):
        return None
    return retry_seconds[failed - 1] * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311  (spreads load, keeps no secret)


def _lock(session: Session, delivery_id: str) -> tuple[WebhookDelivery | None, WebhookEndpoint | None]:
    """First the endpoint, as all do that lock both."""
    endpoint_id = session.scalar(select(WebhookDelivery.endpoint_id).where(WebhookDelivery.id == delivery_id))
    if endpoint_id is None:
        return None, None
    endpoint = session.get(WebhookEndpoint, endpoint_id, populate_existing=True, with_for_update=LOCK)
    return session.get(WebhookDelivery, delivery_id, populate_existing=True, with_for_update=LOCK), endpoint


def _is_wanted(delivery: WebhookDelivery, attempt: int | None) -> bool:
    if attempt is None:
        return delivery.state in ("pending", "failed")
    return delivery.state == "pending" and delivery.attempts == attempt


def _room(session: Session, endpoint: WebhookEndpoint, policy: Policy) -> int:
    """How many more of its attempts may be made at the moment."""
    mine = (WebhookDelivery.endpoint_id == endpoint.id) & (WebhookDelivery.claimed_until > now())
    under_way = session.scalar(select(func.count()).select_from(WebhookDelivery).where(mine)) or 0
    return (1 if endpoint.failing_since else policy.in_flight) - under_way


def _next_ones(session: Session, endpoint: WebhookEndpoint, policy: Policy) -> None:
    """Those that waited for this one to end, as many as there is room for now."""
    room = _room(session, endpoint, policy)
    if endpoint.state != "enabled" or room < 1:
        return
    waiting = (WebhookDelivery.endpoint_id == endpoint.id) & (WebhookDelivery.state == "pending")
    query = select(WebhookDelivery).where(waiting, WebhookDelivery.waits_for_turn).order_by(WebhookDelivery.id)
    for delivery in session.scalars(query.limit(room)):
        delivery.waits_for_turn = False
        webhooks.send(session, delivery.id, delivery.attempts)


def _again_or_never(session: Session, delivery: WebhookDelivery, endpoint: WebhookEndpoint, policy: Policy) -> None:
    wait = wait_seconds(policy.retry_seconds, delivery.attempts - delivery.attempts_before)
    if wait is None:
        delivery.state, delivery.next_at = "failed", None
        return
    delivery.next_at = now() + timedelta(seconds=wait)
    if endpoint.state == "enabled":
        webhooks.send(session, delivery.id, delivery.attempts, delay_seconds=wait)


def _why_disable(endpoint: WebhookEndpoint, outcome: Outcome, policy: Policy) -> str | None:
    if outcome.status == GONE:
        return "it answered 410 Gone"
    since = endpoint.failing_since
    if since is not None and now() - since >= timedelta(seconds=policy.disable_seconds):
        return f"all has failed since {since:%Y-%m-%d %H:%M} UTC, at last: {outcome.problem}"
    return None


def _disable(session: Session, endpoint: WebhookEndpoint, delivery: WebhookDelivery, reason: str) -> None:
    """What is pending waits until somebody enables it; the administrators are told, by way of the failed tasks."""
    at = now()
    endpoint.state, endpoint.disabled_reason, endpoint.updated_at = "disabled", reason, at
    telemetry.WEBHOOKS_DISABLED.inc()
    problem = WebhookEndpointDisabled(endpoint_id=endpoint.id, reason=reason)
    spec = names.DELIVER_WEBHOOK
    failures.note(
        session,
        FailedTask(
            origin=new_id("webhook-disabled"),
            # Done again it is a task of its own; this one had its effect.
            task_id=failures.UNKNOWN,
            task=spec.name,
            queue=spec.queue,
            key=delivery.id,
            payload={"delivery_id": delivery.id},
            reason="failed",
            code=problem.code,
            detail=problem.detail,
            attempts=delivery.attempts,
            failed_at=at,
        ),
    )


def _told(delivery: WebhookDelivery) -> str:
    return "again" if delivery.state == "pending" else delivery.state
