"""The peer as Celery's own first steps have it: a module with an application, all else at its defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from celery import Celery

from tests.benchmarks.bus.marks import mark
from tests.benchmarks.bus.servers import Servers, until
from tests.platform import Process

BROKER: Final = "BENCH_BROKER"
BACKEND: Final = "BENCH_BACKEND"
_MODULE: Final = "tests.benchmarks.bus.plain"

app = Celery("plain", broker=os.environ.get(BROKER), backend=os.environ.get(BACKEND), set_as_current=False)


@app.task(shared=False)
def note(sent: float) -> None:
    mark(sent)


@app.task(shared=False)
def transcode(command: list[str]) -> None:
    """Media as most do it: ffmpeg as a child of the task, at the priority everything has."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@app.task(shared=False)
def payment_notified(notice_id: str) -> None:
    """What the fact starts; here it only has to be on the bus."""


@contextmanager
def sender(servers: Servers, url: str) -> Iterator[Celery]:
    """An application of this process that sends to `url`, as `delay()` does."""
    made = Celery("plain", broker=url, backend=servers.redis.url, set_as_current=False)
    with made:
        yield made


def settings(servers: Servers, url: str) -> dict[str, str]:
    """The settings of its processes."""
    return {BROKER: url, BACKEND: servers.redis.url}


def worker(
    servers: Servers, url: str, *, concurrency: int | None = None, env: dict[str, str], module: str = _MODULE
) -> Process:
    """`celery worker` as it comes: prefork with a process a core, four messages ahead each."""
    return _worker(servers, url, ["--concurrency", str(concurrency)] if concurrency else [], env, module)


def media_worker(servers: Servers, url: str) -> Process:
    """One of its own for media, as its guides advise: an order need not wait until a transcode is done."""
    return _worker(servers, url, ["--queues", "media", "--hostname", "media@%h"], {}, _MODULE)


def _worker(servers: Servers, url: str, arguments: list[str], more: dict[str, str], module: str) -> Process:
    command = [sys.executable, "-m", "celery", "--app", module, "worker", "--loglevel", "INFO"]
    process = servers.start("celery", [*command, *arguments], env=settings(servers, url) | more)
    until(lambda: " ready." in process.said(), "plain Celery's worker is ready", process)
    return process
