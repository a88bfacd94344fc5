"""From an order to its confirmation, over HTTP, the bus and the ledger, by buyers who pay as soon as they may: idle,
and with media on every core. Beside it the plain pattern: handlers that store and call `delay()`, tasks that call the
next."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import nullcontext
from typing import Any, Final
from urllib.parse import urlencode

import psycopg
from sqlalchemy import Engine, create_engine, func, insert, select

from control.ledger.base import Base, now
from control.ledger.notice_models import Notice
from control.ledger.order_models import OrderChange, Product
from tests import services
from tests.benchmarks.bus import notices, plain, plain_shop
from tests.benchmarks.bus.clients import Connection, form_post, json_post
from tests.benchmarks.bus.latency import Spread
from tests.benchmarks.bus.media import Media, make_media
from tests.benchmarks.bus.servers import Servers, running, until
from tests.benchmarks.bus.sms_provider import provider
from tests.platform import Process

_RATE: Final = 50
# Processes that have just started are slower, and what piles up at first would be measured for long.
_WARM_UP: Final = 300
_CONNECTIONS: Final = 16
_PRODUCTS: Final = 20
_LOOK_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 60.0


def main(servers: Servers, seconds: float) -> None:
    """The four, one after the other, and their ratios."""
    print(f"orders: {_RATE}/s for {seconds:.0f} s each, ordered to confirmed, milliseconds", flush=True)
    print(f"  {'':34} {'p50':>8} {'p95':>8} {'p99':>8}")
    media = make_media(servers)
    quiet = measure_ours(servers, seconds, None)
    measure_plain(servers, seconds, None)
    measure_ours(servers, seconds, media)
    measure_plain(servers, seconds, media)
    print(f"  our p99, idle: {quiet.p99:.0f} ms   (bar: at most 250)", flush=True)


def measure_ours(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """API, `worker fast` and `worker notify`: stock, two mails and a text message an order, analytics."""
    with provider() as sms, servers.bus() as bus:
        bus.more = {"AFTERLIVE_NOTIFY_SMS_URLS": f'["http://127.0.0.1:{sms.port}/sms"]'}
        processes = [bus.api(), bus.worker("fast"), bus.worker("notify")]
        with running(processes), media.ours(bus) if media else nullcontext():
            return _measure(_label("afterlive", media), processes[0], bus.ledger.url, seconds)


def measure_plain(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """uvicorn and `celery worker`, as they come; the same tables."""
    with provider() as sms, servers.vhost() as url, plain.sender(servers, url) as sender:
        database = servers.postgresql.database()
        engine = create_engine(database)
        Base.metadata.create_all(engine)
        engine.dispose()
        port = services.free_port()
        env = plain.settings(servers, url) | {
            plain_shop.DATABASE: database,
            plain_shop.PROVIDER: f"http://127.0.0.1:{sms.port}/sms",
        }
        command = [sys.executable, "-m", "uvicorn", f"{plain_shop.__name__}:app", "--port", str(port)]
        api = servers.start("plain-shop", [*command, "--no-access-log"], port, env=env)
        until(api.healthy, "the plain API answers", api)
        worker = plain.worker(servers, url, env=env, module=f"{plain_shop.__name__}:celery_app")
        with running([api, worker]), media.plain(url, sender) if media else nullcontext():
            return _measure(_label("plain Celery", media), api, database, seconds)


def _label(who: str, media: Media | None) -> str:
    return f"{who}, {'media on every core' if media else 'idle'}"


def _measure(label: str, api: Process, database: str, seconds: float) -> Spread:
    engine = create_engine(database)
    try:
        _stock(engine)
        _buy(api, engine, _WARM_UP)
        until(lambda: not _unsent(engine), "all messages are sent", api, seconds=60)
        placed = _buy(api, engine, round(seconds * _RATE))
        confirmed = _confirmed(engine)
    finally:
        engine.dispose()
    spread = Spread.of(sorted((at, confirmed[order_id]) for order_id, at in placed.items()))
    print(f"  {label:34} {spread.p50:8.1f} {spread.p95:8.1f} {spread.p99:8.1f}", flush=True)
    return spread


def _buy(api: Process, engine: Engine, number: int) -> dict[str, float]:
    """Until all are confirmed."""
    placed = asyncio.run(_Buyers(api.port, engine).buy(number))
    until(lambda: placed.keys() <= _confirmed(engine).keys(), "all orders are confirmed", api, seconds=60)
    return placed


def _stock(engine: Engine) -> None:
    rows = [
        {
            "id": f"prd_{number}", "seller_id": "seller", "name": "Tea bowl", "price_minor": 30_000, "currency": "TWD",
            "stock": 1_000_000, "reserved": 0, "sold": 0, "active": True, "created_at": now(), "updated_at": now(),
        }
        for number in range(_PRODUCTS)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(Product), rows)


def _confirmed(engine: Engine) -> dict[str, float]:
    """When each was, in Unix seconds."""
    query = select(OrderChange.order_id, OrderChange.at).where(OrderChange.state == "confirmed")
    with engine.connect() as connection:
        return {row.order_id: row.at.timestamp() for row in connection.execute(query)}


def _unsent(engine: Engine) -> int:
    query = select(func.count()).select_from(Notice).where(Notice.state.in_(("pending", "sending")))
    with engine.connect() as connection:
        return connection.scalar(query) or 0


class _Buyers:
    """Each orders one thing, looks whether it is reserved, and pays."""

    def __init__(self, port: int, engine: Engine) -> None:
        self._port = port
        self._engine = engine
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def buy(self, number: int) -> dict[str, float]:
        """At an even pace; when each order was begun (Unix seconds)."""
        for _ in range(_CONNECTIONS):
            self._free.put_nowait(await Connection.open(self._port))
        watcher = asyncio.create_task(self._watch())
        placed: dict[str, float] = {}
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for position in range(number):
                await asyncio.sleep(max(0.0, started + position / _RATE - time.monotonic()))
                group.create_task(self._one(position, placed))
        watcher.cancel()
        while not self._free.empty():
            self._free.get_nowait().close()
        return placed

    async def _one(self, position: int, placed: dict[str, float]) -> None:
        at = time.time()
        order = {
            "buyer_id": f"buyer-{position}", "buyer_email": f"buyer-{position}@example.com",
            "buyer_phone": f"+8869{12_000_000 + position:08d}", "locale": "en",
            "lines": [{"product_id": f"prd_{position % _PRODUCTS}", "quantity": 1}],
        }  # fmt: skip
        order_id = (await self._call(json_post("/orders", order)))["id"]
        placed[order_id] = at
        reserved = self._waiting[order_id] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(reserved, _PATIENCE_SECONDS)
        payment = (await self._call(json_post(f"/orders/{order_id}/payments", {})))["payment"]
        told = notices.fields(payment["trade_no"], payment["amount_minor"] // 100, payment["id"])
        await self._call(form_post(notices.PATH, urlencode(told).encode()))

    async def _call(self, request: bytes) -> Any:
        connection = await self._free.get()
        try:
            status, body = await connection.call(request)
        finally:
            self._free.put_nowait(connection)
        if not 200 <= status < 300:
            raise RuntimeError(f"{status} {body!r}")
        return json.loads(body) if body.startswith(b"{") else body

    async def _watch(self) -> None:
        """One question to the database for all that wait: what so many buyers' own would cost is not what is
        measured."""
        query = "SELECT id FROM orders WHERE id = ANY(%s) AND state = 'reserved'"
        address = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True, prepare_threshold=0) as connection:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._waiting:
                    for (order_id,) in connection.execute(query, [list(self._waiting)]):
                        self._waiting.pop(order_id).set_result(None)
