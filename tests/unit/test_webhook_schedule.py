"""How long a webhook is tried, and what tells one event from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from control.bus import names
from control.ledger import webhook_endpoints, webhooks
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.webhook_attempts import wait_seconds
from control.ledger.webhook_models import WebhookDelivery
from control.settings import WebhookSettings


def test_it_is_tried_for_about_a_day() -> None:
    retry = WebhookSettings(_env_file=None).retry_seconds
    waits = [wait_seconds(retry, failed) for failed in range(1, len(retry) + 1)]
    for least, wait in zip(retry, waits, strict=True):
        assert wait is not None
        assert least <= wait <= least * 1.1
    assert wait_seconds(retry, len(retry) + 1) is None
    assert retry == sorted(retry)
    assert 24 * 3600 <= sum(retry) <= 30 * 3600
    assert len({wait_seconds(retry, 4) for _ in range(20)}) > 10, "those that failed together come back together"


def test_an_event_is_known_by_what_it_is() -> None:
    first = webhooks.event_id("order.paid", "ord_1", "")
    assert first == webhooks.event_id("order.paid", "ord_1", "")
    others = {
        webhooks.event_id("order.paid", "ord_2", ""),
        webhooks.event_id("payment.failed", "ord_1", ""),
        webhooks.event_id("order.paid", "ord_1", "2"),
        webhooks.event_id("order.paid", "ord_", "12"),
        webhooks.event_id("order.paid", "ord_12", ""),
    }
    assert len(others | {first}) == 6
    assert "." not in first  # which separates what is signed


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made.create()
    return made


def test_who_is_told(ledger: Ledger) -> None:
    def endpoint(*events: str, seller_id: str | None = None, state: str = "enabled") -> str:
        made = webhook_endpoints.create(session, url="https://shop.example", events=events, seller_id=seller_id)
        made.state = state
        return made.id

    with ledger.write() as session:
        everybody, hers = endpoint("order.paid", "payment.failed"), endpoint("order.paid", seller_id="ann")
        endpoint("order.paid", seller_id="bob")
        endpoint("replay.playable", seller_id="ann")
        endpoint("order.paid", state="disabled")
        webhooks.emit(session, "order.paid", about="ord_1", data={"order_id": "ord_1", "seller_id": "ann"})
    with ledger.read() as session:
        made = {one.endpoint_id: one for one in session.scalars(select(WebhookDelivery))}
        sent = [row.payload for row in session.scalars(select(OutboxRow)) if row.task == names.DELIVER_WEBHOOK.name]
    assert set(made) == {everybody, hers}
    assert sent == [{"delivery_id": made[one].id, "attempt": 0} for one in (everybody, hers)]
    body = json.loads(made[hers].body)
    assert body == {
        "type": "order.paid",
        "timestamp": made[hers].created_at.isoformat(),
        "data": {"order_id": "ord_1", "seller_id": "ann"},
    }
    with ledger.write() as session:  # what is nobody's seller's is told to those that listen to all
        webhooks.emit(session, "order.paid", about="ord_2", data={})
    with ledger.read() as session:
        second = session.scalars(select(WebhookDelivery).where(WebhookDelivery.about == "ord_2")).all()
    assert [one.endpoint_id for one in second] == [everybody]


def test_told_twice_is_told_once_and_undone_is_never(ledger: Ledger) -> None:
    with ledger.write() as session:
        webhook_endpoints.create(session, url="https://shop.example", events=["order.paid"])

    def emit(**more: str) -> int:
        with ledger.write() as session:
            webhooks.emit(session, "order.paid", about="ord_1", data={}, **more)
        with ledger.read() as session:
            assert len(session.scalars(select(OutboxRow)).all()) == len(session.scalars(select(WebhookDelivery)).all())
            return len(session.scalars(select(WebhookDelivery)).all())

    assert [emit(), emit(), emit(occurrence="2"), emit(occurrence="2")] == [1, 1, 2, 2]
    with ledger.write() as session:
        webhooks.emit(session, "order.paid", about="ord_2", data={})
        session.rollback()
    assert emit() == 2
    with pytest.raises(ValueError, match=r"order\.sent"), ledger.write() as session:
        webhooks.emit(session, "order.sent", about="ord_1", data={})
