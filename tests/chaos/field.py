"""A platform on servers of its own, under load, of which one thing after the other breaks; and what must hold after."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import func, select

from control.bus.names import FAILED, QUEUES
from control.ledger import failures, outbox, replays, views
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Part
from control.ledger.task_models import TaskRow
from control.storage import ObjectStore, open_store
from tests import brokers, chores, services
from tests.bus import catalogued
from tests.chaos import load
from tests.chaos.load import Load
from tests.chaos.proxy import Proxy
from tests.chaos.supervisor import Supervisor
from tests.e2e.recordings import make
from tests.platform import API_KEY, Platform, Process, platform

_SCRATCH_MIB: Final = 48
# Long: what failed is tried again after up to two minutes. How long it took is printed.
_SETTLE_SECONDS: Final = 300
# Each process has two or three: what it consumes by, what it publishes by, and now and then one to look.
_MOST_CONNECTIONS: Final = 20


@dataclass
class Field:
    """All servers, all tiers, and the network between them."""

    home: Path
    broker: brokers.RabbitMQ
    database: services.PostgresqlServer
    redis: brokers.RedisServer
    s3: services.S3Server
    links: dict[str, Proxy]
    """By what is behind them: broker, database, s3."""
    platform: Platform
    ledger: Ledger
    """Not by way of a link."""
    vhost_url: str
    store: ObjectStore
    client: httpx.Client
    processes: dict[str, Process]
    supervisor: Supervisor
    recordings: list[Path]
    scratch: Path
    scratch_is_small: bool
    undisturbed: dict[str, dict[str, str]] = field(default_factory=dict)
    """By recording: its replay's files and their hashes, made while nothing was broken."""

    def kill(self, name: str) -> None:
        self.supervisor.kill(self.processes[name])

    @contextmanager
    def trouble(self, what: str) -> Iterator[None]:
        """Load, and in the block something breaks and is mended; afterwards all must be as if nothing had been."""
        with Load(self.ledger, self.client, self.recordings) as running:
            before = chores.effects(self.ledger)[1]
            self.until(lambda: chores.effects(self.ledger)[1] > before + 20, "work is done", 60)
            self.until(lambda: running.ended and self.busy(), "parts are made", 60)
            yield
            mended = now()
            effects = chores.effects(self.ledger)[1]
            self.until(lambda: chores.effects(self.ledger)[1] > effects, "the first sale after it")
            time.sleep(1)
            running.stop()
        self.settled(running.ended)
        everything = _since(mended, now())
        self.compare(running.ended)
        with self.ledger.read() as session:
            sold = (TaskRow.task == chores.SELL.name) & (TaskRow.finished_at > mended)
            sale = session.scalar(select(func.min(TaskRow.finished_at)).where(sold))
            part = session.scalar(select(func.min(Part.done_at)).where(Part.done_at > mended))
        print(f"\n  {what}: first sale after {_since(mended, sale)}, first part after {_since(mended, part)},", end=" ")
        streams, sales = len(running.ended), load.accepted(self.ledger)
        print(f"all done after {everything} ({streams} streams; {sales} sales so far, each once)", flush=True)

    def busy(self) -> bool:
        """Whether a media worker is in the middle of a part."""
        return any(self.scratch.glob("afterlive-*"))

    def until(self, condition: Callable[[], Any], what: str, seconds: float = _SETTLE_SECONDS) -> Any:
        return self.platform.wait(condition, what, seconds=seconds)

    def settled(self, ended: dict[str, str]) -> None:
        """All that was accepted is done, and nothing is left of it anywhere."""
        for what, left in {
            "sales that were not made": lambda: load.accepted(self.ledger) - chores.effects(self.ledger)[1],
            "replays that are not finished": self._unfinished,
            "rows of the outbox": self._outbox,
            "messages in queues": lambda: {name: n for name in (*QUEUES, FAILED) if (n := self._depth(name))},
            "work in progress on disk": lambda: [path.name for path in self.scratch.glob("afterlive-*")],
            "workers that do not consume": self._sick,
        }.items():
            self._nothing(what, left)
        assert chores.effects(self.ledger) == (load.accepted(self.ledger),) * 2, "a sale was made twice"
        with self.ledger.read() as session:
            failed = [(row.task, row.reason, row.detail) for row in failures.page(session, limit=100, state=None)]
        assert not failed, failed
        for name in ended:
            assert self._replay(name).state == "completed", (name, self._replay(name))
        assert not self.supervisor.ended, "\n".join(self.supervisor.ended)
        connections = int(self.broker.ctl("eval", "length(rabbit_networking:connections())."))
        assert connections < _MOST_CONNECTIONS, f"{connections} connections to the broker: some are not given back"

    def compare(self, ended: dict[str, str]) -> None:
        """Every replay is, byte for byte, what it would have been."""
        for name, recording in ended.items():
            assert self.files(name) == self.undisturbed[recording], name

    def files(self, stream_id: str) -> dict[str, str]:
        """The replay's files and their hashes; `replay.json` tells how long things took, which differs."""
        prefix = self._replay(stream_id).prefix
        keys = [key for key in self.store.list(prefix) if not key.endswith("/replay.json")]
        return {key.removeprefix(prefix): hashlib.sha256(self.store.get_bytes(key)).hexdigest() for key in keys}

    def _replay(self, stream_id: str) -> Any:
        with self.ledger.read() as session:
            return views.snapshot(session, stream_id).replay

    def _nothing(self, what: str, left: Callable[[], Any]) -> None:
        give_up = time.monotonic() + _SETTLE_SECONDS
        while found := left():
            said = "\n".join(f"--- {one.name}\n{one.said()[-6000:]}" for one in self.platform.processes.values())
            assert time.monotonic() < give_up, f"after {_SETTLE_SECONDS} s there are {what}: {found}\n{said}"
            time.sleep(0.1)

    def _unfinished(self) -> list[str]:
        with self.ledger.read() as session:
            return replays.unfinished(session)

    def _outbox(self) -> int:
        with self.ledger.read() as session:
            return outbox.depth(session)

    def _depth(self, queue: str) -> int:
        return self.broker.depth(self.vhost_url, queue)

    def _sick(self) -> list[str]:
        return [process.name for process in self.processes.values() if process.port and not process.healthy()]


def _since(mended: datetime, then: datetime | None) -> str:
    return f"{(then - mended).total_seconds():.1f} s" if then else "-"


@contextmanager
def field_of(home: Path, recording_seconds: Sequence[int] = (20, 28, 36)) -> Iterator[Field]:
    """All of it, running, with the undisturbed replays of recordings of such lengths made."""
    with ExitStack() as stack:
        folders = {name: home / name for name in ("broker", "database", "redis", "s3", "home")}
        for folder in folders.values():
            folder.mkdir()
        broker = stack.enter_context(brokers.rabbitmq(folders["broker"]))
        database = stack.enter_context(services.postgresql_server(folders["database"]))
        redis = stack.enter_context(brokers.redis_server(folders["redis"]))
        s3 = stack.enter_context(services.s3_server(folders["s3"]))
        links = {"broker": Proxy(broker.port), "database": Proxy(database.port), "s3": Proxy(s3.port)}
        for link in links.values():
            link.start()
            stack.callback(link.stop)
        stack.enter_context(catalogued(*chores.SPECS))
        scratch = folders["home"] / "scratch"
        scratch.mkdir()
        small = _mount(scratch)
        if small:
            stack.callback(subprocess.run, ["umount", "--lazy", str(scratch)], check=False)
        ledger = Ledger(database.database())
        stack.callback(ledger.close)
        ledger.upgrade()
        chores.prepare(ledger)
        load.prepare(ledger)
        url = broker.vhost()
        bucket = s3.settings("chaos")
        running = stack.enter_context(
            platform(
                folders["home"],
                broker,
                redis,
                _by(links["database"], database.port, ledger.url),
                s3,
                broker_url=_by(links["broker"], broker.port, url),
                program=(sys.executable, "-m", "tests.chore_worker"),
                PYTHONPATH=str(Path(__file__).parents[2]),
                AFTERLIVE_STORAGE_URL=bucket.url,
                AFTERLIVE_STORAGE_S3_ENDPOINT=f"http://127.0.0.1:{links['s3'].port}",
                AFTERLIVE_MEDIA_SCRATCH=str(scratch),
                AFTERLIVE_MEDIA_CHUNK_SECONDS="6",
                AFTERLIVE_MEDIA_CONCURRENCY="2",
            )
        )
        recordings = []
        for number, seconds in enumerate(recording_seconds):
            path = make(
                folders["home"] / "recordings" / f"{seconds}s.mp4", seconds=seconds, size="320x180", tone=300 + number
            )
            os.utime(path, (0, 0))  # an old file: nobody is waited for who may still write to it
            recordings.append(path)
        api = running.api()
        processes = {"api": api} | {tier: running.worker(tier, tier) for tier in ("fast", "notify", "media")}
        processes["beat"] = running.beat()
        supervisor = Supervisor(list(processes.values()))
        client = running.client(api)
        stack.callback(client.close)
        running.consuming(*(processes[tier] for tier in ("fast", "notify", "media")))
        supervisor.start()
        stack.callback(supervisor.stop)
        made = Field(
            home, broker, database, redis, s3, links, running, ledger, url, open_store(bucket), client, processes,
            supervisor, recordings, scratch, small,
        )  # fmt: skip
        _make_undisturbed(made)
        yield made


def _make_undisturbed(made: Field) -> None:
    headers = {"X-API-Key": API_KEY}
    names = {f"undisturbed-{path.stem}": path.name for path in made.recordings}
    started = time.monotonic()
    for name, recording in names.items():
        made.client.post("/streams", json={"id": name, "title": name, "recording": recording}, headers=headers)
        made.client.post(f"/streams/{name}/end", json={}, headers=headers).raise_for_status()
    made.settled(names)
    made.undisturbed = {recording: made.files(name) for name, recording in names.items()}
    print(f"\n  undisturbed: {len(names)} streams in {time.monotonic() - started:.1f} s", flush=True)


def _by(link: Proxy, port: int, url: str) -> str:
    assert f":{port}/" in url
    return url.replace(f":{port}/", f":{link.port}/")


def _mount(folder: Path) -> bool:
    """Make the folder a disk of its own, small enough to be filled; False where only root may."""
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SCRATCH_MIB}m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
