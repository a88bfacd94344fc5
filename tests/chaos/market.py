"""A platform that sells: its own processes and servers, a gateway and a mail server around it; and its books."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from control.bus.names import FAILED, QUEUES
from control.ledger import failures, outbox
from control.ledger.analytics_models import StreamAnalytics
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.notice_models import UNFINISHED, Notice
from control.ledger.order_models import Order, OrderChange, OrderLine, Product
from control.ledger.payment_models import Payment, PaymentNotice
from tests import brokers, services
from tests.chaos.buyers import Buyers
from tests.chaos.supervisor import Supervisor
from tests.ecpay import MERCHANT, FakeEcpay, fake_ecpay
from tests.mail import MailServer, mail_server
from tests.platform import Platform, Process, platform

_PRICE: Final = 10_000
_THREADS: Final = 16
"""Of a worker: so many mails may be on their way when it is killed."""
_FROM: Final = "shop.example"


@dataclass
class Market:
    """All of it, running."""

    platform: Platform
    broker: brokers.RabbitMQ
    database: services.PostgresqlServer
    ledger: Ledger
    vhost_url: str
    client: httpx.Client
    ecpay: FakeEcpay
    mails: MailServer
    processes: dict[str, Process]
    supervisor: Supervisor
    stock: dict[str, int] = field(default_factory=dict)
    """By product, what there was of it in the beginning."""
    stream: str = ""
    mended: list[tuple[str, datetime]] = field(default_factory=list)

    def open(self, *stock: int) -> None:
        """A stream, and products with so much of them."""
        self.stream = self._post("/streams", {"title": "Sale", "seller_id": "seller"})["id"]
        for amount in stock:
            facts = {"seller_id": "seller", "name": "Bowl", "price_minor": _PRICE, "stock": amount}
            self.stock[self._post("/products", facts | {"stream_id": self.stream})["id"]] = amount

    def kill(self, *names: str) -> None:
        """kill -9; returns once they run again."""
        servers: dict[str, brokers.RabbitMQ | services.PostgresqlServer] = {
            "broker": self.broker,
            "database": self.database,
        }
        for name in names:
            server = servers.get(name)
            if server is None:
                self.supervisor.kill(self.processes[name])
            else:
                server.kill()
                time.sleep(1)
                server.start()
        self.mended.append((" and ".join(names), now()))

    def sell(self, number: int, faults: list[tuple[str, ...]], settle_seconds: float) -> None:
        """So many buyers, while these are killed, one after the other; then the books are looked through."""
        started = time.monotonic()
        buyers = Buyers(self.client, self.ecpay, list(self.stock), number)
        with buyers.buying():
            for position, names in enumerate(faults, 1):
                due = number * position // (len(faults) + 1)
                self.platform.wait(lambda due=due: len(buyers.placed) >= due, f"{due} orders", seconds=400)
                self.kill(*names)
        bought = time.monotonic()
        self._settled(settle_seconds)
        print(
            f"\n  {number} orders, {len(buyers.paid)} paid, {buyers.copies} notices: {bought - started:.0f} s, ", end=""
        )
        print(f"all settled {time.monotonic() - bought:.0f} s later", flush=True)
        self._check(buyers, number)
        for what, at in self.mended:
            with self.ledger.read() as session:
                mine = (OrderChange.state == "confirmed") & (OrderChange.at > at)
                first = session.scalar(select(func.min(OrderChange.at)).where(mine))
            print(f"  {what} killed: {f'{(first - at).total_seconds():.1f} s' if first else 'none'} to the next sale")

    # --- the books ----------------------------------------------------------------------------------------------------

    def _check(self, buyers: Buyers, number: int) -> None:
        with self.ledger.read() as session:
            orders = {order.id: order for order in session.scalars(select(Order))}
            changes = Counter((row.order_id, row.state) for row in session.scalars(select(OrderChange)))
            payments = list(session.scalars(select(Payment)))
            lines = list(session.scalars(select(OrderLine)))
            products = list(session.scalars(select(Product)))
            failed = [(row.task, row.reason, row.detail) for row in failures.page(session, limit=100, state=None)]
        confirmed = {order_id for order_id, order in orders.items() if order.state == "confirmed"}
        states = Counter(order.state for order in orders.values())
        print(f"  orders: {dict(states)}; payments: {dict(Counter(payment.state for payment in payments))}")

        assert Counter(order.buyer_id for order in orders.values()) == {f"buyer-{n}": 1 for n in range(number)}
        assert set(buyers.placed.values()) == set(orders)
        assert not set(states) - {"confirmed", "sold_out", "expired", "cancelled"}
        assert {order_id for order_id, state in changes if state == "confirmed"} == confirmed
        assert not {key: times for key, times in changes.items() if key[1] in ("paid", "confirmed") and times > 1}

        sold = Counter({product.id: 0 for product in products})
        for line in lines:
            assert line.holds == ("sold" if line.order_id in confirmed else "nothing"), line.order_id
            sold[line.product_id] += line.quantity if line.order_id in confirmed else 0
        for product in products:
            assert (product.reserved, product.sold) == (0, sold[product.id])
            assert product.stock + product.sold == self.stock[product.id]

        # Whose money was taken has the goods, or the money: nobody else has any.
        paid = {payment.id for payment in payments if payment.state == "paid"}
        refunded = {payment.id for payment in payments if payment.state == "refunded"}
        assert paid | refunded == set(buyers.paid)
        assert sorted(payment.order_id for payment in payments if payment.id in paid) == sorted(confirmed)
        for payment in payments:
            if payment.id in refunded:
                assert payment.refund_reason == "too-late"
                assert orders[payment.order_id].problem == "paid-too-late"
            assert payment.state != "review", payment.problem
        trades = self.ecpay.http.get("/_fake/trades").json()
        taken = {one["MerchantTradeNo"]: int(one["TradeAmt"]) * 100 for one in trades if one["TradeStatus"] == "1"}
        back = {one["MerchantTradeNo"] for one in trades if one["given_back"]}
        assert back == {payment.trade_no for payment in payments if payment.id in refunded}
        revenue = sum(orders[order_id].total_minor for order_id in confirmed)
        assert sum(amount for trade_no, amount in taken.items() if trade_no not in back) == revenue

        (total,) = self._figures()["totals"]
        items = sum(sold.values())
        assert (total["orders"], total["items"], total["revenue_minor"]) == (len(confirmed), items, revenue)
        self._check_mails(confirmed, {order_id for order_id, state in changes if state == "expired"})
        assert not failed, failed
        assert not self.supervisor.ended, "\n".join(self.supervisor.ended)

    def _check_mails(self, confirmed: set[str], expired: set[str]) -> None:
        """Each once; what was on its way while its worker was killed may have come a second time, as the same mail."""
        keys = {f"{kind}:{one}" for kind in ("order_confirmation", "payment_confirmation") for one in confirmed}
        wanted = {_message_id(key) for key in keys | {f"abandoned-cart:{one}" for one in expired}}
        came = Counter(str(mail["Message-ID"]) for mail in self.mails.mails)
        assert set(came) == wanted
        with self.ledger.read() as session:
            tried = {_message_id(row.key): row.attempts for row in session.scalars(select(Notice))}
        again = {message_id: times for message_id, times in came.items() if times > 1}
        kills = sum("notify" in what for what, _ in self.mended)
        extra = sum(again.values()) - len(again)
        print(f"  mails: {len(wanted)}, {extra} of them twice ({kills} times the worker that sends them was killed)")
        assert extra <= _THREADS * kills
        assert all(times <= tried[message_id] for message_id, times in again.items())

    def _settled(self, seconds: float) -> None:
        """Nothing is left to do anywhere."""
        give_up = time.monotonic() + seconds
        for what, left in self._left().items():
            while found := _or_away(left):
                said = "\n".join(f"--- {one.name}\n{one.said()[-4000:]}" for one in self.platform.processes.values())
                assert time.monotonic() < give_up, f"after {seconds} s there are {what}: {found}\n{said}"
                time.sleep(0.1)

    def _left(self) -> dict[str, Callable[[], Any]]:
        def rows(model: Any, *where: Any) -> Callable[[], int]:
            def count() -> int:
                with self.ledger.read() as session:
                    return session.scalar(select(func.count()).select_from(model).where(*where)) or 0

            return count

        def due() -> Any:
            """What is there for later, such as another look at a message that came twice, is not waited for."""
            with self.ledger.read() as session:
                return outbox.oldest_due(session)

        return {
            "orders under way": rows(Order, Order.state.in_(("placed", "reserved", "paid"))),
            "unread payment notices": rows(PaymentNotice, PaymentNotice.processed_at.is_(None)),
            "refunds": rows(Payment, Payment.state == "refunding"),
            "orders that wait": rows(Order, Order.waits_since.is_not(None)),
            "unsent messages": rows(Notice, text(UNFINISHED)),
            "uncounted sales": rows(StreamAnalytics, StreamAnalytics.counted < StreamAnalytics.changes),
            "rows of the outbox": due,
            "messages in queues": lambda: {
                name: found for name in (*QUEUES, FAILED) if (found := self.broker.depth(self.vhost_url, name))
            },
            "sick processes": lambda: [one.name for one in self.processes.values() if one.port and not one.healthy()],
        }

    def _figures(self) -> Any:
        return self.client.get(f"/streams/{self.stream}/analytics").raise_for_status().json()["figures"]

    def _post(self, path: str, facts: dict[str, Any]) -> Any:
        return self.client.post(path, json=facts).raise_for_status().json()


def _or_away(left: Callable[[], Any]) -> Any:
    try:
        return left()
    except OperationalError:
        return "no database"


def _message_id(key: str) -> str:
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{_FROM}>"


@contextmanager
def market_of(
    home: Path,
    broker: brokers.RabbitMQ,
    redis: brokers.RedisServer,
    database: services.PostgresqlServer,
    s3: services.S3Server,
    *,
    reservation_seconds: int,
) -> Iterator[Market]:
    """Runs until the block ends."""
    with ExitStack() as stack:
        ecpay, mails = stack.enter_context(fake_ecpay()), stack.enter_context(mail_server())
        ecpay.lie(hold=True)  # its own notices are told by the buyers' side, out of order
        ledger = Ledger(database.database())
        stack.callback(ledger.close)
        ledger.upgrade()
        url = broker.vhost()
        stack.callback(broker.forget, url)
        running = stack.enter_context(
            platform(
                home,
                broker,
                redis,
                ledger.url,
                s3,
                broker_url=url,
                AFTERLIVE_SHOP_RESERVATION_SECONDS=str(reservation_seconds),
                AFTERLIVE_PAYMENT_MERCHANT_ID=MERCHANT.id,
                AFTERLIVE_PAYMENT_HASH_KEY=MERCHANT.hash_key,
                AFTERLIVE_PAYMENT_HASH_IV=MERCHANT.hash_iv,
                AFTERLIVE_PAYMENT_BASE_URL=ecpay.url,
                AFTERLIVE_NOTIFY_MAIL_URL=f"smtp://127.0.0.1:{mails.port}",
                AFTERLIVE_NOTIFY_MAIL_FROM=f"shop@{_FROM}",
            )
        )
        api = running.api()
        processes = {"api": api, "fast": running.worker("fast", "fast"), "notify": running.worker("notify", "notify")}
        # No beat: nothing that is killed here is mended by the clock, minutes later.
        client = running.client(api)
        stack.callback(client.close)
        running.consuming(processes["fast"], processes["notify"])
        supervisor = Supervisor(list(processes.values()))
        supervisor.start()
        stack.callback(supervisor.stop)
        yield Market(running, broker, database, ledger, url, client, ecpay, mails, processes, supervisor)
