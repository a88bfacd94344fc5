"""Webhooks on the real bus and ledger, to a real receiver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks import WebhookVerificationError

from control.bus import names
from control.bus.app import NOTIFY, PIPELINES
from control.bus.context import Delivery, working_on
from control.bus.embedded import Embedded
from control.errors import InputError
from control.ledger import (
    failures,
    streams,
    tasks,
    webhook_attempts,
    webhook_deliveries,
    webhook_endpoints,
    webhooks,
)
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.webhook_models import WebhookDelivery, WebhookEndpoint
from control.settings import Settings, WebhookSettings, use
from notify_worker.tasks.webhook import deliver_webhook, policy_of
from pipelines.cleanup import forget_tasks
from tests.backend import Made
from tests.bus import bus, until
from tests.fake_media import Studio
from tests.receiver import Receiver, receiver


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def allowed(settings: Settings, **changes: Any) -> Settings:
    """With the receiver's address allowed, and a schedule that can be waited for."""
    given: dict[str, Any] = {"allow_private": True, "allow_http": True, "retry_seconds": [0.05, 0.05]} | changes
    made = settings.model_copy(update={"webhook": WebhookSettings(_env_file=None, **given)})
    use(made)
    return made


class Shop:
    """The platform as its webhooks see it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def endpoint(self, url: str, events: Sequence[str] = ("order.paid",)) -> WebhookEndpoint:
        with self.ledger.write() as session:
            return webhook_endpoints.create(session, url=url, events=events)

    def pay(self, *orders: str) -> None:
        with self.ledger.write() as session:
            for order_id in orders:
                data = {"order_id": order_id, "total_minor": 129900, "currency": "TWD"}
                webhooks.emit(session, "order.paid", about=order_id, data=data)

    def do(self, action: Callable[..., Any], *arguments: Any) -> Any:
        with self.ledger.write() as session:
            return action(session, *arguments)

    def one(self, order_id: str = "ord_1") -> WebhookDelivery:
        with self.ledger.read() as session:
            return session.scalars(select(WebhookDelivery).where(WebhookDelivery.about == order_id)).one()

    def wait(self, state: str, order_id: str = "ord_1") -> WebhookDelivery:
        until(lambda: self.one(order_id).state == state, f"{order_id} is {state}")
        return self.one(order_id)

    def look(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        with self.ledger.read() as session:
            return session.get_one(WebhookEndpoint, endpoint.id)

    def failed_tasks(self) -> list[str]:
        with self.ledger.read() as session:
            return [row.code for row in failures.page(session, limit=10, task=names.DELIVER_WEBHOOK.name)]

    def waiting(self) -> list[OutboxRow]:
        with self.ledger.read() as session:
            rows = select(OutboxRow).where(OutboxRow.task == names.DELIVER_WEBHOOK.name).order_by(OutboxRow.id)
            return list(session.scalars(rows))


@pytest.fixture
def shop(settings: Settings) -> Iterator[Shop]:
    """A running one."""
    with bus(allowed(settings), modules=(NOTIFY,)) as running:
        yield Shop(running.ledger)


@pytest.fixture
def still(settings: Settings, ledger: Ledger) -> Shop:
    """One in which nothing moves by itself."""
    allowed(settings)
    return Shop(ledger)


# --- delivered --------------------------------------------------------------------------------------------------------


def test_it_is_delivered_once_and_signed(shop: Shop, there: Receiver) -> None:
    endpoint = shop.endpoint(there.url("/hooks/shop?key=1"))
    shop.pay("ord_1")
    shop.pay("ord_1")  # as after a message that came twice
    delivery = shop.wait("delivered")
    shop.pay("ord_2")
    shop.wait("delivered", "ord_2")
    first, second = there.got
    assert first.path == "/hooks/shop?key=1"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["host"] == f"127.0.0.1:{there.port}"
    assert first.id == delivery.event_id != second.id
    said = first.verified(endpoint.secret)
    assert said["type"] == "order.paid"
    assert said["data"] == {"order_id": "ord_1", "total_minor": 129900, "currency": "TWD"}
    assert first.body.decode() == delivery.body
    with pytest.raises(WebhookVerificationError):
        first.verified("whsec_" + "A" * 43)
    assert (delivery.attempts, delivery.last_status, delivery.last_problem, delivery.next_at) == (1, 200, None, None)


def test_what_failed_is_tried_again_until_it_is_taken(shop: Shop, there: Receiver) -> None:
    there.answers = [500, 429]
    endpoint = shop.endpoint(there.url())
    shop.pay("ord_1")
    delivery = shop.wait("delivered")
    assert delivery.attempts == 3
    assert {one.id for one in there.got} == {delivery.event_id}
    assert len({one.body for one in there.got}) == 1
    for one in there.got:
        one.verified(endpoint.secret)
    assert shop.look(endpoint).failing_since is None


# --- failed -----------------------------------------------------------------------------------------------------------


def test_what_failed_for_good_is_sent_when_somebody_asks(shop: Shop, there: Receiver) -> None:
    there.answers = [500] * 6
    endpoint = shop.endpoint(there.url())
    shop.pay("ord_1", "ord_2")
    for order_id in ("ord_1", "ord_2"):
        delivery = shop.wait("failed", order_id)
        assert (delivery.attempts, delivery.last_problem) == (3, "it answered 500")
    assert shop.look(endpoint).failing_since is not None
    there.answers = [500]  # and the schedule begins anew
    shop.do(webhook_deliveries.replay, shop.one().id)
    assert shop.wait("delivered").attempts == 5
    assert shop.do(webhook_deliveries.replay_failed, endpoint.id, now()) == 0
    assert shop.do(webhook_deliveries.replay_failed, endpoint.id, now() - timedelta(hours=1)) == 1
    shop.wait("delivered", "ord_2")
    assert len({one.id for one in there.got}) == 2
    before = len(there.got)
    shop.do(webhook_deliveries.replay, shop.one().id)  # once more, though it was delivered
    until(lambda: len(there.got) == before + 1, "it comes once more")
    assert shop.wait("delivered").attempts == 6


def test_one_that_is_gone_is_disabled_at_once(shop: Shop, there: Receiver) -> None:
    there.answers = [410]
    endpoint = shop.endpoint(there.url())
    shop.pay("ord_1")
    until(lambda: shop.look(endpoint).state == "disabled", "it is disabled")
    assert shop.look(endpoint).disabled_reason == "it answered 410 Gone"
    assert shop.failed_tasks() == ["webhook-endpoint-disabled"], "the administrators are told"
    shop.pay("ord_2")  # nobody wants to know
    assert len(there.got) == 1
    assert shop.one().state == "pending"
    shop.do(webhook_endpoints.change, endpoint.id, {"state": "enabled"})
    shop.wait("delivered")
    assert [one.id for one in there.got] == [shop.one().event_id] * 2


def test_one_that_fails_for_long_is_disabled(settings: Settings, there: Receiver) -> None:
    there.answers = [500] * 2
    with bus(allowed(settings, disable_seconds=0.01, retry_seconds=[0.05] * 9), modules=(NOTIFY,)) as running:
        shop = Shop(running.ledger)
        endpoint = shop.endpoint(there.url())
        shop.pay("ord_1")
        until(lambda: shop.look(endpoint).state == "disabled", "it is disabled")
        assert "all has failed since" in str(shop.look(endpoint).disabled_reason)
        assert shop.failed_tasks() == ["webhook-endpoint-disabled"]
        assert (shop.one().state, shop.one().attempts) == ("pending", 2)
        (row,) = shop.do(lambda session: failures.page(session, limit=1))
        shop.do(webhook_endpoints.change, endpoint.id, {"state": "enabled"})
        shop.wait("delivered")
        again = shop.do(failures.replay, row.id, "somebody").replayed_as
        until(lambda: shop.do(tasks.get, again).state == "SUCCESS", "it is done, and to no effect any more")
        assert len(there.got) == 3


# --- others do not wait -----------------------------------------------------------------------------------------------


def test_a_slow_one_holds_nobody_up(shop: Shop, there: Receiver) -> None:
    there.held.clear()
    slow = [f"ord_{number}" for number in range(6)]
    with receiver() as quick:
        endpoint = shop.endpoint(there.url())
        shop.pay(*slow)
        until(lambda: len(there.got) == 2, "as many as may be are under way")
        until(lambda: len([one for one in slow if shop.one(one).waits_for_turn]) == 4, "the others wait")
        until(lambda: not shop.waiting(), "and no message goes round and round meanwhile")
        with shop.ledger.write() as session:
            session.get_one(WebhookEndpoint, endpoint.id).events = ["payment.failed"]
        shop.endpoint(quick.url())
        shop.pay("ord_quick")
        shop.wait("delivered", "ord_quick")
        assert len(there.got) == 2
        there.held.set()
        for order_id in slow:
            assert shop.wait("delivered", order_id).attempts == 1
        assert len(there.got) == 6
        assert there.most_at_once == 2


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_while_a_secret_is_taken_over_both_sign(still: Shop, there: Receiver) -> None:
    def pay(order_id: str) -> None:
        still.pay(order_id)
        deliver_webhook.body(**still.waiting()[-1].payload)

    endpoint = still.endpoint(there.url())
    old = endpoint.secret
    new = still.do(webhook_endpoints.rotate_secret, endpoint.id).secret
    pay("ord_1")
    assert len(there.got[0].signatures) == 2
    assert there.got[0].verified(new) == there.got[0].verified(old)
    with still.ledger.write() as session:
        session.get_one(WebhookEndpoint, endpoint.id).previous_until = now() - timedelta(seconds=1)
    pay("ord_2")
    there.got[1].verified(new)
    with pytest.raises(WebhookVerificationError):
        there.got[1].verified(old)


# --- nothing lost, nothing doubled ------------------------------------------------------------------------------------


def test_a_message_that_comes_again_sends_nothing_again(still: Shop, there: Receiver) -> None:
    still.endpoint(there.url())
    still.pay("ord_1")
    (row,) = still.waiting()
    for task_id in ("first", "first", "another"):
        with working_on(Delivery(task_id, names.DELIVER_WEBHOOK.name, names.DEFAULT, row.payload["delivery_id"], 1)):
            deliver_webhook.body(**row.payload)
    assert len(there.got) == 1
    assert (still.one().state, still.one().attempts) == ("delivered", 1)


def test_while_one_sends_another_does_not(still: Shop, there: Receiver, settings: Settings) -> None:
    """As where the broker gave the message to a second worker, the first cut off from it but alive."""
    still.endpoint(there.url())
    still.pay("ord_1")
    (row,) = still.waiting()
    there.held.clear()
    first = threading.Thread(target=lambda: deliver_webhook.body(**row.payload))
    first.start()
    until(lambda: there.got, "the first sends")
    deliver_webhook.body(**row.payload)
    assert len(there.got) == 1
    _, later = still.waiting()
    assert later.available_at > now() + timedelta(seconds=settings.webhook.total_seconds), (
        "when a dead one's claim ends"
    )
    there.held.set()
    first.join(10)
    assert still.one().state == "delivered"
    deliver_webhook.body(**later.payload)
    assert len(there.got) == 1


def test_one_whose_sender_was_killed_is_sent_at_the_next_start(settings: Settings, there: Receiver) -> None:
    made = allowed(settings)
    first = Embedded(made, (PIPELINES, NOTIFY))
    first.ledger.upgrade()
    shop = Shop(first.ledger)
    shop.endpoint(there.url())
    shop.pay("ord_1", "ord_2")
    with shop.ledger.write() as session:
        for row in session.scalars(select(OutboxRow)):
            session.delete(row)  # they were on the bus, which forgot them
        policy = policy_of(made.webhook)
        assert webhook_attempts.claim(session, shop.one("ord_1").id, 0, policy)
    with first:
        for order_id in ("ord_1", "ord_2"):
            shop.wait("delivered", order_id)
        assert len(there.got) == 2


def test_a_message_that_was_lost_is_sent_again(still: Shop, there: Receiver) -> None:
    still.endpoint(there.url())
    still.pay("ord_1")

    def lose(session: Any, *, minutes: int) -> None:
        session.get_one(WebhookDelivery, still.one().id).next_at = now() - timedelta(minutes=minutes)

    assert still.do(webhook_deliveries.send_lost) == 0, "it may well be on its way"
    still.do(lambda session: lose(session, minutes=6))
    assert [still.do(webhook_deliveries.send_lost) for _ in range(2)] == [1, 0]
    for row in still.waiting():
        deliver_webhook.body(**row.payload)
    assert len(there.got) == 1, "and had it not been lost, it would not come twice"


def test_what_was_told_long_ago_is_forgotten(still: Shop, there: Receiver) -> None:
    still.endpoint(there.url())
    still.pay("ord_1", "ord_2", "ord_3")
    for row in still.waiting()[:2]:
        deliver_webhook.body(**row.payload)
    with still.ledger.write() as session:
        for age, order_id in ((31, "ord_1"), (29, "ord_2"), (31, "ord_3")):
            session.get_one(WebhookDelivery, still.one(order_id).id).created_at = now() - timedelta(days=age)
    forget_tasks(still.ledger)
    with still.ledger.read() as session:
        left = session.scalars(select(WebhookDelivery.about).order_by(WebhookDelivery.about)).all()
    assert left == ["ord_2", "ord_3"], "what is pending stays"


def test_a_deleted_one_gets_nothing_more(still: Shop, there: Receiver) -> None:
    endpoint = still.endpoint(there.url())
    still.pay("ord_1")
    still.do(webhook_endpoints.remove, endpoint.id)
    for row in still.waiting():
        deliver_webhook.body(**row.payload)
    assert there.got == []
    assert still.one().state == "discarded"
    assert still.look(endpoint).secret == ""
    still.pay("ord_2")
    assert len(still.waiting()) == 1


# --- of replays -------------------------------------------------------------------------------------------------------


def test_what_becomes_of_a_replay(settings: Settings, there: Receiver) -> None:
    studio = Studio()
    studio.errors = {"chunk-00001": InputError(source="/srv/60s.mp4", reason="it is damaged")}
    with bus(allowed(settings), *studio.bodies(), modules=(PIPELINES, NOTIFY)) as running:
        made, shop = Made(running), Shop(running.ledger)
        events = ("replay.playable", "replay.completed", "replay.failed")
        endpoint = shop.endpoint(there.url(), events)
        replay_id = made.end()
        made.wait("failed")
        until(lambda: "replay.failed" in types(there, endpoint.secret), "it is told")
        studio.errors.clear()
        made.do(streams.retry)
        made.wait("completed")
        until(lambda: "replay.completed" in types(there, endpoint.secret), "it is told")
        until(lambda: not shop.waiting(), "the outbox is empty")
    told = {one.verified(endpoint.secret)["type"]: one.verified(endpoint.secret)["data"] for one in there.got}
    assert set(told) == set(events)
    assert told["replay.failed"]["problem"] == {"code": "recording-unusable"}
    done = told["replay.completed"]
    assert {"stream_id": "s", "seller_id": None, "replay_id": replay_id, "run": 2, "state": "completed"} == {
        name: done[name] for name in ("stream_id", "seller_id", "replay_id", "run", "state")
    }
    assert done["playable_at"] <= done["finished_at"]
    assert told["replay.playable"]["seconds"] > 0
    everything = b"".join(one.body for one in there.got)
    assert b"60s.mp4" not in everything
    assert b"replays/" not in everything
    assert len(there.got) == len({one.id for one in there.got})


def types(there: Receiver, secret: str) -> set[str]:
    return {one.verified(secret)["type"] for one in list(there.got)}
