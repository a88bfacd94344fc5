"""What the platform is for, as production does it: an order, its payment, and a stream that becomes a replay."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from control.gateways import NOTICES
from control.ledger.engine import Ledger
from tests import brokers, monitoring, services
from tests.e2e.recordings import make
from tests.ecpay import MERCHANT, FakeEcpay, body, fake_ecpay, notice
from tests.mail import MailServer, mail_server, plain
from tests.platform import API_KEY, Platform, platform
from tests.receiver import Receiver, receiver
from tests.sms import Provider, provider
from tests.traces import Collector, Seen, collector

_RESERVATION_SECONDS: Final = 10
_PRICE: Final = 129900
_MAIL, _PHONE = "buyer@example.com", "+886912345678"


@dataclass
class Shop:
    """The platform, and the world around it."""

    platform: Platform
    client: httpx.Client
    ecpay: FakeEcpay
    mails: MailServer
    sms: Provider
    hooks: Receiver
    traces: Collector
    secret: str
    """Of the webhooks."""
    stream: str
    forgotten: tuple[str, str] = ("", "")
    """All there is of a product, and the order of it that nobody will pay."""

    def product(self, stock: int) -> str:
        facts = {"seller_id": "seller-42", "name": "Tea bowl", "price_minor": _PRICE, "stock": stock}
        return str(self._post("/products", facts | {"stream_id": self.stream})["id"])

    def figures(self, product_id: str) -> tuple[int, int, int]:
        """What is free, reserved and sold of it."""
        found = self.get(f"/products/{product_id}")
        return found["stock"], found["reserved"], found["sold"]

    def order(self, product_id: str, quantity: int, then: str) -> str:
        """Place an order twice by one key, which is once; it comes into the state `then`."""
        wanted = {
            "buyer_id": "buyer-7", "buyer_email": _MAIL, "buyer_phone": _PHONE, "locale": "en",
            "lines": [{"product_id": product_id, "quantity": quantity}],
        }  # fmt: skip
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        first, again = (self.client.post("/orders", json=wanted, headers=headers) for _ in range(2))
        assert (first.status_code, first.json()["state"]) == (201, "placed")
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
        order_id = str(first.json()["id"])
        self.becomes(order_id, then)
        return order_id

    def becomes(self, order_id: str, state: str) -> None:
        self.until(lambda: self.get(f"/orders/{order_id}")["state"] == state, f"the order is {state}")

    def pay(self, order_id: str) -> str:
        """The buyer goes to the gateway and pays there; the trade's number."""
        opened = self._post(f"/orders/{order_id}/payments", {})
        assert self.ecpay.submit(opened["form"]).status_code == 200
        trade_no = str(opened["payment"]["trade_no"])
        self.ecpay.press(trade_no, "pay")
        return trade_no

    def told(self, event: str) -> list[dict[str, Any]]:
        """What the webhooks told of it; each is signed."""
        found = [one.verified(self.secret) for one in list(self.hooks.got)]
        return [one["data"] for one in found if one["type"] == event]

    def get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def until(self, condition: Any, what: str, seconds: float = 60) -> Any:
        return self.platform.wait(condition, what, seconds=seconds)

    def _post(self, path: str, facts: dict[str, Any]) -> Any:
        return self.client.post(path, json=facts).raise_for_status().json()


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    rabbitmq: brokers.RabbitMQ,
    redis_server: brokers.RedisServer,
    postgresql_server: services.PostgresqlServer,
    s3_server: services.S3Server,
) -> Iterator[Shop]:
    ledger = Ledger(postgresql_server.database())
    ledger.upgrade()
    ledger.close()
    with ExitStack() as stack:
        ecpay, mails = stack.enter_context(fake_ecpay()), stack.enter_context(mail_server())
        traces = stack.enter_context(collector())
        sms, hooks = stack.enter_context(provider()), stack.enter_context(receiver())
        url = rabbitmq.vhost()
        stack.callback(rabbitmq.forget, url)
        running = stack.enter_context(
            platform(
                tmp_path_factory.mktemp("shop"),
                rabbitmq,
                redis_server,
                ledger.url,
                s3_server,
                broker_url=url,
                AFTERLIVE_SHOP_RESERVATION_SECONDS=str(_RESERVATION_SECONDS),
                AFTERLIVE_PAYMENT_MERCHANT_ID=MERCHANT.id,
                AFTERLIVE_PAYMENT_HASH_KEY=MERCHANT.hash_key,
                AFTERLIVE_PAYMENT_HASH_IV=MERCHANT.hash_iv,
                AFTERLIVE_PAYMENT_BASE_URL=ecpay.url,
                AFTERLIVE_TRACING_ENDPOINT=traces.url,
                AFTERLIVE_TRACING_SHARE="1",
                OTEL_BSP_SCHEDULE_DELAY="500",  # milliseconds; the SDK's own setting
                AFTERLIVE_OTP_SECRET="a-secret-for-codes-of-tests",
                AFTERLIVE_NOTIFY_MAIL_URL=f"smtp://127.0.0.1:{mails.port}",
                AFTERLIVE_NOTIFY_SMS_URLS=f'["{sms.url}"]',
                AFTERLIVE_WEBHOOK_ALLOW_PRIVATE="true",
                AFTERLIVE_WEBHOOK_ALLOW_HTTP="true",
            )
        )
        api = running.api()
        workers = [running.worker(tier) for tier in ("fast", "notify", "media")]
        client = running.client(api)
        stack.callback(client.close)
        running.consuming(*workers)
        endpoint = {"url": hooks.url(), "events": ["order.paid", "replay.completed"]}
        secret = client.post("/webhook-endpoints", json=endpoint).raise_for_status().json()["secret"]
        stream = client.post("/streams", json={"title": "Tea time", "seller_id": "seller-42"}).raise_for_status()
        made = Shop(running, client, ecpay, mails, sms, hooks, traces, secret, stream.json()["id"])
        bowl = made.product(stock=3)
        made.forgotten = (bowl, made.order(bowl, 3, "reserved"))
        assert made.figures(bowl) == (0, 3, 0)
        yield made


def test_a_payment_confirms_its_order_once_whatever_the_gateway_says_again(shop: Shop) -> None:
    bowl = shop.product(stock=5)
    mails, texts = len(shop.mails.mails), len(shop.sms.messages)
    order_id = shop.order(bowl, 1, "reserved")
    trade_no = shop.pay(order_id)
    shop.becomes(order_id, "confirmed")

    def consequences() -> tuple[Any, ...]:
        subjects = [str(mail["Subject"]) for mail in shop.mails.mails[mails:] if order_id in plain(mail)]
        sold = shop.get(f"/streams/{shop.stream}/analytics")["figures"]
        return (
            shop.figures(bowl),
            len(subjects),
            len(set(subjects)),
            [message.fields["to"] for message in shop.sms.messages[texts:] if order_id in message.fields["text"]],
            [paid["order_id"] for paid in shop.told("order.paid")],
            [(one["orders"], one["revenue_minor"]) for one in sold["totals"]] if sold else [],
        )

    payment = shop.get(f"/orders/{order_id}/payments")["items"][0]
    assert (payment["state"], payment["trade_no"]) == ("paid", trade_no)
    (heard,) = [one for one in shop.ecpay.told if one["fields"]["MerchantTradeNo"] == trade_no]
    tell = partial(httpx.post, f"{shop.client.base_url}{NOTICES}ecpay")
    for _ in range(3):
        assert tell(content=body(heard["fields"])).text == "1|OK"
    other = shop.order(bowl, 1, "reserved")
    unpaid = shop.client.post(f"/orders/{other}/payments", json={}).json()["payment"]
    forged = notice(unpaid["trade_no"], CustomField1=unpaid["id"]) | {"CheckMacValue": heard["fields"]["CheckMacValue"]}
    assert tell(content=body(forged)).status_code == 403
    shop.client.post(f"/orders/{other}/cancel").raise_for_status()
    # It is counted some ten seconds after it was sold: well after all that the copies could have had done.
    expected = ((4, 0, 1), 2, 2, [_PHONE], [order_id], [(1, _PRICE)])
    shop.until(lambda: consequences() == expected, "everybody is told once, and it is counted")
    assert all(to == [_MAIL] for to in shop.mails.to[mails:])
    assert [change["state"] for change in shop.get(f"/orders/{order_id}")["history"]] == [
        "placed", "reserved", "paid", "confirmed",
    ]  # fmt: skip
    assert "paid" not in [change["state"] for change in shop.get(f"/orders/{other}")["history"]]
    assert shop.get(f"/payments/{unpaid['id']}")["state"] == "pending"
    said = "".join(process.said() for process in shop.platform.processes.values())
    assert not [word for word in (_MAIL, _PHONE, _PHONE.removeprefix("+886"), shop.secret) if word in said]


def test_an_order_keeps_its_stock_until_it_is_over(shop: Shop) -> None:
    bowl = shop.product(stock=3)
    first = shop.order(bowl, 2, "reserved")
    assert shop.figures(bowl) == (1, 2, 0)
    shop.order(bowl, 2, "sold_out")
    assert shop.figures(bowl) == (1, 2, 0)
    shop.client.post(f"/orders/{first}/cancel").raise_for_status()
    shop.until(lambda: shop.figures(bowl) == (3, 0, 0), "what was cancelled is free again")
    product_id, forgotten = shop.forgotten
    shop.becomes(forgotten, "expired")
    shop.until(lambda: shop.figures(product_id) == (3, 0, 0), "what nobody paid for is free again")
    refused = shop.client.post(f"/orders/{forgotten}/payments", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_a_stream_that_ends_is_a_replay_and_others_are_told(shop: Shop) -> None:
    make(shop.platform.home / "recordings" / "live.mp4", seconds=8, size="320x180")
    shop.client.post(f"/streams/{shop.stream}/end", json={"recording": "live.mp4"}).raise_for_status()
    (told,) = shop.until(lambda: shop.told("replay.completed"), "the replay is made, and told of")
    assert (told["stream_id"], told["state"]) == (shop.stream, "completed")
    assert shop.get(f"/streams/{shop.stream}")["replay"]["state"] == "completed"
    assert not shop.get("/failed-tasks")["items"]
    shop.until(lambda: len(chunks_of(shop)) == 2, "the spans of both chunks are at the collector")
    (request,) = shop.traces.named("POST /streams/{stream_id}/end")
    for chunk in chunks_of(shop):
        way = shop.traces.from_the_first(chunk)
        assert (way[0], way[-1], chunk.trace) == (request.name, "run media.transcode_chunk", request.trace)
    services_of_it = {one.service for one in shop.traces.seen if one.trace == request.trace}
    assert services_of_it >= {"afterlive-api", "afterlive-notify", "afterlive-media"}


def chunks_of(shop: Shop) -> list[Seen]:
    return shop.traces.named("run media.transcode_chunk")


# No GPU is here, and none of what these count happens to a platform that is well; what they are is shown elsewhere
# (tests/prometheus, test_gpu_metrics).
_MAY_BE_EMPTY: Final = (
    "afterlive_gpu_",
    "afterlive_encoder_",
    "afterlive_rungs_repinned_total",
    "afterlive_task_retries_total",
    "afterlive_task_duplicates_total",
    'afterlive_gateway_seconds_count{result!="answered"}',
    'afterlive_notices_total{state="failed"}',
)


def test_prometheus_sees_all_that_dashboards_and_alerts_ask_for(
    shop: Shop, rabbitmq: brokers.RabbitMQ, tmp_path: Path
) -> None:
    """Twice the same business: a rate needs a metric that is there before it grows."""
    targets = {name.partition("-")[0]: [f"127.0.0.1:{one.port}"] for name, one in shop.platform.processes.items()}
    broker = [f"127.0.0.1:{rabbitmq.metrics_port}"]
    with monitoring.prometheus(
        tmp_path, targets | {"rabbitmq": broker, "rabbitmq-queues": broker}, API_KEY
    ) as prometheus:
        shop.until(lambda: not prometheus.unhealthy(), f"all targets are scraped: {prometheus.unhealthy()}")
        before = figures(prometheus)
        for round in (1, 2):
            do_business(shop, round)
            done = f'sum(afterlive_replays_total{{state="completed"}}) >= {before["completed"] + round}'
            shop.until(lambda done=done: prometheus.query(done), "Prometheus has seen it")
        shop.until(lambda: prometheus.firing() == {"ReplayFailed"}, "the alert of what failed, and no other")
        give_up = time.monotonic() + 20
        while (missing := empty(prometheus)) and time.monotonic() < give_up:
            time.sleep(0.5)
        assert missing == []
        assert not [
            rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"] if rule.get("lastError")
        ]
        for where, expression in monitoring.queries():
            values = [value for _, value in prometheus.query(expression)]
            assert all(value >= 0 or math.isnan(value) for value in values), (where, values)
            assert not values or not all(math.isnan(value) for value in values), (where, expression)
        # Not only are there numbers: they are those of two recordings of 90 frames, a chunk each. Each process is
        # scraped at its own time, so they come one after the other.
        seconds = pytest.approx(2 * _SECONDS)
        wanted = {"completed": 2, "playable": 2, "chunks": 2, "frames": 180, "seconds": seconds, "failed": 2}
        gained: dict[str, float] = {}

        def counted() -> bool:
            gained.update({name: value - before[name] for name, value in figures(prometheus).items()})
            return {name: gained[name] for name in wanted} == wanted

        shop.until(counted, f"{wanted} is counted")
        assert gained["put"] > gained["made"] > 0
        shop.until(lambda: prometheus.value("max(afterlive_backlog_frames)") == 0, "nothing is left to be made")


def do_business(shop: Shop, round: int) -> None:
    """An order, paid and given back, a code, a stream that becomes a replay and one that does not."""
    bowl = shop.product(stock=5)
    order_id = shop.order(bowl, 1, "reserved")
    shop.pay(order_id)
    shop.becomes(order_id, "confirmed")
    payment = shop.get(f"/orders/{order_id}/payments")["items"][0]["id"]
    shop.client.post(f"/payments/{payment}/refund").raise_for_status()
    shop.becomes(order_id, "refunded")
    forged = notice("TRADE1") | {"CheckMacValue": "0" * 64}
    assert httpx.post(f"{shop.client.base_url}{NOTICES}ecpay", content=body(forged)).status_code == 403
    shop.client.post("/otp", json={"phone": f"+88691234567{round}", "purpose": "login"}).raise_for_status()
    make(shop.platform.home / "recordings" / f"{round}.mp4", seconds=_SECONDS, size="320x180")
    for recording, state in ((f"{round}.mp4", "completed"), (f"none-{round}.mp4", "failed")):
        stream = shop.client.post("/streams", json={"title": "Tea time"}).raise_for_status().json()["id"]
        shop.client.post(f"/streams/{stream}/end", json={"recording": recording}).raise_for_status()
        ended = partial(_replay_is, shop, stream, state)
        shop.until(ended, f"it is {state}", seconds=120)  # encoders take what others leave of the machine


def _replay_is(shop: Shop, stream: str, state: str) -> bool:
    return bool(shop.get(f"/streams/{stream}")["replay"]["state"] == state)


def empty(prometheus: monitoring.Prometheus) -> list[tuple[str, str]]:
    """What has no data: queries of dashboards, and what alerts look at before they compare."""
    asked = monitoring.queries()
    for rule in monitoring.rules():
        name = rule.get("alert") or rule["record"]
        asked += [(name, selector) for selector in monitoring.selectors(rule["expr"]) if "alert" in rule]
    return [
        (where, expression)
        for where, expression in asked
        if not any(name in expression for name in _MAY_BE_EMPTY) and not prometheus.query(expression)
    ]


_SECONDS: Final = 3
_FIGURES: Final = {
    "completed": 'sum(afterlive_replays_total{state="completed"})',
    "playable": 'sum(afterlive_replay_seconds_count{mark="playable"})',
    "chunks": 'sum(afterlive_chunks_total{result="done"})',
    "frames": "max(sum by (rung) (afterlive_transcoded_frames_total))",
    "seconds": "max(sum by (rung) (afterlive_transcoded_seconds_total))",
    "made": "sum(afterlive_transcoded_bytes_total)",
    "put": 'sum(afterlive_store_bytes_total{job="media",operation="put"})',
    "failed": 'sum(max by (task) (afterlive_failed_tasks{task="media.process_stream_recording"}))',
}


def figures(prometheus: monitoring.Prometheus) -> dict[str, float]:
    """0 where nothing was counted yet."""
    return {name: prometheus.value(query) or 0.0 for name, query in _FIGURES.items()}
