"""Facts accepted over HTTP a second, and whether any is lost where the server is killed.

The fact is a payment gateway's notice, `POST /webhooks/payment/ecpay`. Beside it a FastAPI handler that checks and
stores the same notice and calls Celery's `delay()`; each one process, on the same servers.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from kombu import Connection, Queue
from sqlalchemy import create_engine, func, select

from control.bus import names
from control.ledger.base import Base
from control.ledger.models import OutboxRow
from control.ledger.payment_models import PaymentNotice
from tests import services
from tests.benchmarks.bus import notices, plain, plain_api
from tests.benchmarks.bus.clients import CLIENTS, Answers, Request, post_all
from tests.benchmarks.bus.servers import Bus, Servers, kill_tree, processor_seconds, until
from tests.platform import Process

_NOTICES: Final = 30_000
_ROUNDS: Final = 2
_WARM_UP_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 1.0
# The default of Celery's applications.
_PLAIN_QUEUE: Final = "celery"


def main(servers: Servers, seconds: float) -> None:
    """Each in turn, twice; the faster counts. Then both are killed at work."""
    each = seconds / _ROUNDS
    print(f"facts over HTTP: {CLIENTS} clients that keep their connections, {_ROUNDS} × {each:.0f} s each", flush=True)
    with servers.bus() as bus, servers.vhost() as url:
        database = servers.postgresql.database()
        _tables(database)
        mine, theirs = notices.requests(_NOTICES), notices.requests(_NOTICES)
        ways: dict[str, tuple[Callable[[], Process], Iterator[Request]]] = {
            "afterlive api": (bus.api, mine),
            "FastAPI and delay()": (lambda: _plain(servers, url, database), theirs),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        costs: dict[str, list[float]] = {way: [] for way in ways}
        waiting = 0
        for _, (way, (start, requests)) in itertools.product(range(_ROUNDS), ways.items()):
            api = start()
            _checked(post_all(api.port, requests, _WARM_UP_SECONDS))
            before = processor_seconds(api)
            answers = _checked(post_all(api.port, requests, each))
            rates[way].append(answers.rate)
            costs[way].append((processor_seconds(api) - before) / len(answers.accepted) * 1000)
            if start == bus.api:
                waiting = max(waiting, _outbox(bus))
                until(lambda: not _outbox(bus), "the outbox is empty", api)
            kill_tree(api)
        for way, found in rates.items():
            listed = " ".join(f"{rate:8.0f}" for rate in found)
            print(f"  {way:34} {listed} /s   {min(costs[way]):5.2f} ms of processor each")
        ratio = max(rates["afterlive api"]) / max(rates["FastAPI and delay()"])
        print(f"  ratio                              {ratio:8.2f}   (bar: at least 2)")
        print(f"  outbox rows that waited for our relay at the end: {waiting}", flush=True)
        _kill_ours(bus, mine)
        _kill_plain(servers, url, database, theirs)


def _plain(servers: Servers, url: str, database: str) -> Process:
    """uvicorn with one process, as ours has."""
    port = services.free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.benchmarks.bus.plain_api:app", "--port", str(port)]
    env = plain.settings(servers, url) | {plain_api.DATABASE: database}
    process = servers.start("plain-api", [*command, "--no-access-log"], port, env=env)
    until(process.healthy, "the plain API answers", process)
    return process


def _tables(database: str) -> None:
    engine = create_engine(database)
    Base.metadata.create_all(engine)
    engine.dispose()


def _checked(answers: Answers) -> Answers:
    if answers.refused or not answers.accepted:
        raise RuntimeError(f"not accepted: {answers.refused[:3]}")
    return answers


def _outbox(bus: Bus) -> int:
    with bus.ledger.read() as session:
        return session.scalar(select(func.count()).select_from(OutboxRow)) or 0


def _kill_ours(bus: Bus, requests: Iterator[Request]) -> None:
    api = bus.api()
    accepted = _killed_at_work(api, requests)
    restarted = bus.api()
    until(lambda: not _outbox(bus), "the outbox is empty", restarted)
    kill_tree(restarted)
    sent = _drain(bus.url, names.HIGH, lambda body: str(body[1]["notice_id"]))
    _tell("afterlive api", accepted, bus.ledger.url, sent)


def _kill_plain(servers: Servers, url: str, database: str, requests: Iterator[Request]) -> None:
    accepted = _killed_at_work(_plain(servers, url, database), requests)
    _tell("FastAPI and delay()", accepted, database, _drain(url, _PLAIN_QUEUE, lambda body: str(body[0][0])))


def _killed_at_work(api: Process, requests: Iterator[Request]) -> set[str]:
    """kill -9 while all clients have a request under way; what was accepted until then."""
    killer = threading.Timer(_WARM_UP_SECONDS, api.kill)
    killer.start()
    answers = post_all(api.port, requests, 10 * _WARM_UP_SECONDS)
    killer.join()
    return set(_checked(answers).accepted)


def _drain(url: str, queue: str, about: Callable[[Any], str]) -> set[str]:
    """What the messages of a queue are about; they are gone then. What waited long enough will have come."""
    found: set[str] = set()
    quiet_since = time.monotonic()

    def take(message: Any) -> None:
        found.add(about(json.loads(message.body)))

    with (
        Connection(url) as connection,
        connection.Consumer(Queue(queue), on_message=take, no_ack=True, auto_declare=False),
    ):
        while time.monotonic() - quiet_since < _QUIET_SECONDS:
            try:
                connection.drain_events(timeout=_QUIET_SECONDS)
                quiet_since = time.monotonic()
            except TimeoutError:
                continue
    return found


def _tell(way: str, accepted: set[str], database: str, sent: set[str]) -> None:
    engine = create_engine(database)
    with engine.connect() as connection:
        stored = {row.trade_no: row.id for row in connection.execute(select(PaymentNotice.trade_no, PaymentNotice.id))}
    engine.dispose()
    unstored = len(accepted - stored.keys())
    unsent = sum(1 for trade_no in accepted if stored.get(trade_no) not in sent)
    print(
        f"  kill -9 of {way:23} {len(accepted):8} accepted, lost: {unstored} in the database, {unsent} on the bus",
        flush=True,
    )
