"""Webhooks by workers as production runs them."""

from __future__ import annotations

from sqlalchemy import func, select

from control.ledger import webhook_endpoints, webhooks
from control.ledger.webhook_models import WebhookDelivery
from tests.integration.rabbitmq.conftest import Works
from tests.receiver import receiver

_ALLOWED = {
    "AFTERLIVE_WEBHOOK_ALLOW_PRIVATE": "true",
    "AFTERLIVE_WEBHOOK_ALLOW_HTTP": "true",
    "AFTERLIVE_WEBHOOK_RETRY_SECONDS": "[1, 1]",
}


def test_each_comes_once_though_the_receiver_fails_at_first(works: Works) -> None:
    def delivered() -> bool:
        with works.ledger.read() as session:
            states = select(WebhookDelivery.state, func.count()).group_by(WebhookDelivery.state)
            return [tuple(row) for row in session.execute(states)] == [("delivered", 20)]

    with receiver() as there:
        there.answers = [503] * 3
        with works.ledger.write() as session:
            endpoint = webhook_endpoints.create(session, url=there.url("/the-secret-path"), events=["order.paid"])
            for number in range(20):
                webhooks.emit(session, "order.paid", about=f"ord_{number}", data={"number": number})
        workers = [works.platform.worker("notify", name, **_ALLOWED) for name in ("one", "other")]
        works.until(delivered, "all are delivered")
        assert sorted(one.verified(endpoint.secret)["data"]["number"] for one in there.got[3:]) == list(range(20))
        assert len(there.got) == 23
        assert there.most_at_once <= 2
        for worker in workers:
            assert "the-secret-path" not in worker.said()
            assert endpoint.secret not in worker.said()
