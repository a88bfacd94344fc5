"""The whole platform as production runs it: each tier its own process, on private servers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import services
from tests.brokers import RabbitMQ, RedisServer

API_KEY = "key-for-tests-of-production"


@dataclass
class Process:
    """One of our processes and its log."""

    name: str
    command: list[str]
    env: dict[str, str]
    cwd: Path
    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=self.cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9, of it alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float = 30) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def healthy(self) -> bool:
        """Whether its `/healthz` is content."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text


@dataclass
class Platform:
    """Settings all processes share, and the processes that run."""

    home: Path
    env: dict[str, str]
    broker_url: str
    processes: dict[str, Process] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    """What runs; `afterlive` itself unless the test brings tasks of its own."""

    def worker(self, tier: str, name: str = "", **env: str) -> Process:
        """A worker of a tier; it consumes once it has said so."""
        port = services.free_port()
        called = name or f"{tier}-{len(self.processes)}"
        return self._run(called, ["worker", tier, "--name", called, "--port", str(port)], port, env)

    def api(self, name: str = "api", **env: str) -> Process:
        port = services.free_port()
        return self._run(name, ["api", "--port", str(port)], port, env)

    def beat(self, name: str = "beat", **env: str) -> Process:
        return self._run(name, ["beat"], 0, env)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        return subprocess.run(
            [str(services.tool("afterlive")), *arguments],
            env=self.env | env, cwd=self.home, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def client(self, api: Process) -> httpx.Client:
        """Of the API, once it is ready."""
        made = httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers={"X-API-Key": API_KEY}, timeout=10)
        self.wait(lambda: _answers(made), f"{api.name} answers", api)
        return made

    def wait(self, condition: object, what: str, *processes: Process, seconds: float = 60) -> object:
        """The first true value of `condition()`."""
        give_up = time.monotonic() + seconds
        while not (value := condition()):  # type: ignore[operator]
            for process in processes:
                assert process.alive, f"{process.name} ended:\n{process.said()}"
            if time.monotonic() > give_up:
                said = "\n".join(f"--- {one.name}\n{one.said()[-3000:]}" for one in self.processes.values())
                raise AssertionError(f"not within {seconds} s: {what}\n{said}")
            time.sleep(0.05)
        return value

    def consuming(self, *processes: Process) -> None:
        for process in processes:
            self.wait(lambda process=process: "consumes" in process.said(), f"{process.name} consumes", process)

    def stop(self) -> None:
        for process in self.processes.values():
            if process.alive:
                assert process.process is not None
                process.process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            if process.process is not None:
                services.stop(process.process)

    def _run(self, name: str, arguments: list[str], port: int, env: dict[str, str]) -> Process:
        command = [*(self.program or (str(services.tool("afterlive")),)), *arguments]
        made = Process(name, command, self.env | env, self.home, self.home / f"{name}.log", port)
        self.processes[name] = made
        return made.start()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def platform(
    home: Path,
    broker: RabbitMQ,
    redis: RedisServer,
    database: str,
    store: services.S3Server,
    *,
    broker_url: str = "",
    program: tuple[str, ...] = (),
    **env: str,
) -> Iterator[Platform]:
    """Settings for all tiers; the schema is there, and so are the queues."""
    url = broker_url or broker.vhost()
    recordings = home / "recordings"
    recordings.mkdir(exist_ok=True)
    bucket = store.settings(f"b{home.name[:20].lower().replace('_', '-')}{services.free_port()}")
    assert bucket.s3_secret_key is not None
    made = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AFTERLIVE_")},
        "AFTERLIVE_BUS_BROKER_URL": url,
        "AFTERLIVE_BUS_RESULT_BACKEND": redis.url,
        "AFTERLIVE_DATABASE_URL": database,
        "AFTERLIVE_STORAGE_URL": bucket.url,
        "AFTERLIVE_STORAGE_S3_ENDPOINT": str(bucket.s3_endpoint),
        "AFTERLIVE_STORAGE_S3_ACCESS_KEY": store.access_key,
        "AFTERLIVE_STORAGE_S3_SECRET_KEY": store.secret_key,
        "AFTERLIVE_API_KEYS": f'["{API_KEY}"]',
        "AFTERLIVE_API_SIGNING_SECRET": "a-secret-for-tests",
        "AFTERLIVE_MEDIA_RECORDING_ROOTS": f'["{recordings}"]',
        "AFTERLIVE_MEDIA_CONCURRENCY": "2",
        "AFTERLIVE_MEDIA_PRESET": "ultrafast",
        **env,
    }
    running = Platform(home, made, url, program=program)
    try:
        yield running
    finally:
        running.stop()
