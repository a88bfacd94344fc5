"""The private servers of one run, and the processes on them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from celery import Celery
from pydantic import SecretStr

from control.bus.app import make_app
from control.bus.publish import publisher_of
from control.ledger.engine import Ledger
from control.settings import BusSettings
from media_worker.idle_group import own_group
from tests import brokers, services
from tests.benchmarks.bus import marks, notices, ours
from tests.platform import API_KEY, Process

ROOT: Final = Path(__file__).parents[3]


@dataclass
class Servers:
    """RabbitMQ, Redis, PostgreSQL and an S3 server, each started for this run alone, and what runs on them."""

    home: Path
    broker: brokers.RabbitMQ
    redis: brokers.RedisServer
    postgresql: services.PostgresqlServer
    s3: services.S3Server
    recordings: Path = field(init=False)
    _processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recordings = self.home / "recordings"
        self.recordings.mkdir()

    def folder(self, name: str) -> Path:
        """A new folder."""
        made = self.home / f"{name}-{len(list(self.home.iterdir()))}"
        made.mkdir()
        return made

    def marks(self) -> Path:
        return self.folder("marks") / "marks"

    @contextmanager
    def bus(self) -> Iterator[Bus]:
        """Our bus: a virtual host with its topology, a ledger, and an application that sends."""
        url = self.broker.vhost()
        ledger = Ledger(self.postgresql.database())
        ledger.upgrade()
        ours.prepare(ledger)
        app = make_app(
            BusSettings(_env_file=None, broker_url=SecretStr(url), result_backend=SecretStr(f"{self.redis.url[:-1]}1"))
        )
        try:
            yield Bus(self, url, ledger, app)
        finally:
            publisher_of(app).close()
            ledger.close()
            self.broker.forget(url)

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """An empty virtual host, for a peer to make its own queues in."""
        url = self.broker.vhost(topology=False)
        try:
            yield url
        finally:
            self.broker.forget(url)

    def start(self, name: str, command: list[str], port: int = 0, *, env: dict[str, str]) -> Process:
        """One process, with none of the caller's settings but these."""
        home = self.folder(name)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AFTERLIVE_")}
        made = Process(name, command, clean | {"PYTHONPATH": str(ROOT)} | env, home, home / "out.log", port)
        self._processes.append(made)
        return made.start()

    def stop(self) -> None:
        """Whatever still runs."""
        for process in self._processes:
            kill_tree(process)


@dataclass
class Bus:
    """One virtual host with our queues and its ledger."""

    servers: Servers
    url: str
    ledger: Ledger
    app: Celery
    more: dict[str, str] = field(default_factory=dict)
    """Settings of its processes besides."""

    def worker(self, tier: str, path: Path | None = None) -> Process:
        """`afterlive worker TIER` with this benchmark's tasks besides, consuming."""
        port = services.free_port()
        name = f"{tier}-{port}"
        command = [sys.executable, "-m", "tests.benchmarks.bus.ours", "worker", tier, "--name", name]
        env = self.env() | ({marks.ENVIRONMENT: str(path)} if path else {})
        process = self.servers.start(f"ours-{tier}", [*command, "--port", str(port)], port, env=env)
        until(lambda: "consumes" in process.said(), f"our {tier} worker consumes", process)
        return process

    def api(self) -> Process:
        """`afterlive api`, ready."""
        port = services.free_port()
        command = [str(services.tool("afterlive")), "api", "--port", str(port)]
        process = self.servers.start("ours-api", command, port, env=self.env())
        until(process.healthy, "our API answers", process)
        return process

    def env(self) -> dict[str, str]:
        redis = f"{self.servers.redis.url[:-1]}1"
        # As media nodes have it in production: no file of theirs is flushed to the disk the broker writes to.
        store = self.servers.s3.settings("replays")
        return {
            "AFTERLIVE_BUS_BROKER_URL": self.url,
            "AFTERLIVE_BUS_RESULT_BACKEND": redis,
            "AFTERLIVE_DATABASE_URL": self.ledger.url,
            "AFTERLIVE_STORAGE_URL": store.url,
            "AFTERLIVE_STORAGE_S3_ENDPOINT": str(store.s3_endpoint),
            "AFTERLIVE_STORAGE_S3_ACCESS_KEY": self.servers.s3.access_key,
            "AFTERLIVE_STORAGE_S3_SECRET_KEY": self.servers.s3.secret_key,
            "AFTERLIVE_API_KEYS": f'["{API_KEY}"]',
            "AFTERLIVE_API_SIGNING_SECRET": "a-secret-for-benchmarks",
            **notices.SETTINGS,
            "AFTERLIVE_MEDIA_RECORDING_ROOTS": f'["{self.servers.recordings}"]',
            "AFTERLIVE_MEDIA_PACE_MS": "0.5",  # as README says for a machine that has both
            **self.more,
        }


@contextmanager
def private_servers(home: Path) -> Iterator[Servers]:
    """All of them, until the block ends."""
    folders = [home / name for name in ("rabbitmq", "redis", "postgresql", "s3")]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as stack:
        prefix = stack.enter_context(_group())
        made = Servers(
            home,
            stack.enter_context(brokers.rabbitmq(folders[0], prefix=prefix)),
            stack.enter_context(brokers.redis_server(folders[1])),
            stack.enter_context(services.postgresql_server(folders[2], durable=True)),
            # On machines of its own in production, and nothing of the peer's: it takes only what all others leave.
            stack.enter_context(services.s3_server(folders[3], prefix=["chrt", "--idle", "0"])),
        )
        stack.callback(made.stop)
        yield made


@contextmanager
def _group() -> Iterator[list[str]]:
    """What starts the broker in a control group of its own, as a service or a container has one: in that of everything
    else, one thread of it that has woken another loses its core to an encoder until the scheduler's next tick."""
    own = own_group()
    folder = own.folder / f"afterlive-bench-{os.getpid()}" if own and own.may_have_others else None
    if own and folder:
        try:
            own.prepare()
            folder.mkdir()
        except OSError:
            folder = None
    print(f"the broker has a control group of its own: {'yes' if folder else 'no'}", flush=True)
    if folder is None:
        yield []
        return
    try:
        yield ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(folder)]
    finally:
        until(lambda: not (folder / "cgroup.procs").read_text(), "the broker has ended")
        folder.rmdir()


def until(condition: Callable[[], object], what: str, *processes: Process, seconds: float = 60) -> None:
    """Wait for it. Raises RuntimeError where it takes too long, or one of `processes` ended."""
    give_up = time.monotonic() + seconds
    while not condition():
        ended = [process for process in processes if not process.alive]
        if ended or time.monotonic() > give_up:
            said = "\n".join(process.said()[-3000:] for process in ended or processes)
            raise RuntimeError(f"{what}: not within {seconds} s\n{said}")
        time.sleep(0.01)


def processor_seconds(*processes: Process) -> float:
    """What they and all they started have used: unlike wall time hardly spoiled by whatever else runs."""
    total = 0.0
    for one in [one for process in processes for one in tree(process)]:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            # Of children, those that have ended; the others are asked themselves.
            total += times.user + times.system + times.children_user + times.children_system
    return total


def tree(process: Process) -> list[psutil.Process]:
    """It and all it started, of what still runs."""
    if not process.alive or process.process is None:
        return []
    parent = psutil.Process(process.process.pid)
    return [parent, *parent.children(recursive=True)]


@contextmanager
def running(processes: list[Process]) -> Iterator[list[Process]]:
    """Until the block ends."""
    try:
        yield processes
    finally:
        for process in processes:
            kill_tree(process)


def kill_tree(process: Process) -> None:
    """kill -9 of it and of all it started: nothing of a measurement may run on into the next."""
    for one in tree(process):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    if process.process is not None:
        process.process.wait()
