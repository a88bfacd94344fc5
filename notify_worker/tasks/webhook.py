"""Webhooks to other systems."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from control.bus import names
from control.bus.task import task
from control.ledger import tasks, webhook_attempts
from control.ledger.engine import open_ledger
from control.ledger.webhook_attempts import Policy
from control.settings import WebhookSettings, current
from notify_worker.webhook_sending import send

log = logging.getLogger("afterlive.webhooks")


@task(names.DELIVER_WEBHOOK)
def deliver_webhook(delivery_id: str, attempt: int | None = None) -> None:
    """One attempt, where it is this message's turn. The next one, if there is to be one, is another message."""
    settings = current().webhook
    ledger = open_ledger(current().ledger.url)
    policy = policy_of(settings)
    with ledger.write() as session:
        claimed = webhook_attempts.claim(session, delivery_id, attempt, policy)
    if claimed is None:
        tasks.once(ledger, _nothing)
        return
    outcome = send(claimed, settings)
    if outcome.problem:
        log.info("webhook delivery=%s endpoint=%s: %s", delivery_id, claimed.endpoint_id, outcome.problem)
    tasks.once(ledger, lambda session: webhook_attempts.note(session, claimed, outcome, policy))


def policy_of(settings: WebhookSettings) -> Policy:
    """What of the settings the ledger is to know."""
    return Policy(
        retry_seconds=settings.retry_seconds,
        disable_seconds=settings.disable_seconds,
        in_flight=settings.in_flight,
        total_seconds=settings.total_seconds,
    )


def _nothing(session: Session) -> None:
    """It had its effect before, or is not to have one now."""
