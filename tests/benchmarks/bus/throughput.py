"""Small tasks a second, from the first that is sent to the last that ran, beside Celery, Dramatiq and Taskiq.

All on the same RabbitMQ, each as its guide has it, with as many worker processes as there are cores to compare on: two.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dramatiq.brokers.rabbitmq import RabbitmqBroker
from taskiq_aio_pika import AioPikaBroker

from control.bus.names import TaskSpec
from control.bus.publish import Outgoing, publisher_of
from tests.benchmarks.bus import marks, ours, peer_dramatiq, peer_taskiq, plain
from tests.benchmarks.bus.servers import Servers, processor_seconds, running, until
from tests.platform import Process

_PROCESSES: Final = 2
# As many at a time as our relay takes from the outbox.
_BATCH: Final = 200
# So many on their way at a time, as our own publisher has: alone, each would wait for the broker's word.
_WINDOW: Final = 64
_WARM_UP: Final = 100
Send = Callable[[int], None]
Way = AbstractContextManager[tuple[Send, list[Process]]]


@dataclass(frozen=True)
class Rates:
    sent: float
    ran: float


def main(servers: Servers, number: int) -> None:
    """One after the other, and the ratios to ours."""
    print(f"throughput: {number} tasks that do nothing, tasks/s, {_PROCESSES} worker processes", flush=True)
    print(f"  {'':34} {'sent':>8} {'all ran':>8} {'ms each':>11}    ours / theirs")
    one = _measure(servers, number, "afterlive, one process", lambda path: _ours(servers, path, ours.NOTE, 1))
    mine = _measure(servers, number, "afterlive", lambda path: _ours(servers, path, ours.NOTE, _PROCESSES))
    _measure(
        servers, number, "afterlive, an effect in the ledger",
        lambda path: _ours(servers, path, ours.NOTE_ONCE, _PROCESSES),
    )  # fmt: skip
    for name, peer in (("plain Celery", _celery), ("Dramatiq", _dramatiq), ("Taskiq", _taskiq)):
        _measure(servers, number, name, partial(peer, servers), mine)
    print(f"  ratio, ours with two processes / with one  {mine.ran / one.ran:8.2f}", flush=True)


def _measure(servers: Servers, number: int, name: str, way: Callable[[Path], Way], mine: Rates | None = None) -> Rates:
    path = servers.marks()
    with way(path) as (send, workers):
        send(_WARM_UP)
        until(lambda: marks.count(path) >= _WARM_UP, f"the first tasks of {name} have run", seconds=60)
        before = processor_seconds(*workers)
        started = time.time()
        send(number)
        sent = time.time()
        until(lambda: marks.count(path) >= _WARM_UP + number, f"all tasks of {name} have run", seconds=120)
        ended = max(start for _, start in marks.read(path))
        cost = (processor_seconds(*workers) - before) / number * 1000
    rates = Rates(number / (sent - started), number / (ended - started))
    ratio = f"{mine.ran / rates.ran:8.2f}" if mine else ""
    print(f"  {name:34} {rates.sent:8.0f} {rates.ran:8.0f} {cost:11.2f}    {ratio}", flush=True)
    return rates


@contextmanager
def _ours(servers: Servers, path: Path, spec: TaskSpec, processes: int) -> Iterator[tuple[Send, list[Process]]]:
    with servers.bus() as bus, running([bus.worker("fast", path) for _ in range(processes)]) as workers:

        def send(number: int) -> None:
            publisher = publisher_of(bus.app)
            for first in range(0, number, _BATCH):
                size = min(_BATCH, number - first)
                problems = publisher.publish([Outgoing(spec, {"sent": time.time()}) for _ in range(size)])
                if problem := next((problem for problem in problems if problem), None):
                    raise problem

        yield send, workers


@contextmanager
def _celery(servers: Servers, path: Path) -> Iterator[tuple[Send, list[Process]]]:
    """Prefork with a process a core, which is two here unless told."""
    with servers.vhost() as url, plain.sender(servers, url) as sender:
        worker = plain.worker(servers, url, concurrency=_PROCESSES, env={marks.ENVIRONMENT: str(path)})

        def send(number: int) -> None:
            for _ in range(number):
                sender.send_task(plain.note.name, [time.time()])

        with running([worker]) as workers:
            yield send, workers


@contextmanager
def _dramatiq(servers: Servers, path: Path) -> Iterator[tuple[Send, list[Process]]]:
    """Eight threads a process."""
    with servers.vhost() as url:
        broker = RabbitmqBroker(url=url)
        broker.declare_queue("default")
        command = ["dramatiq", peer_dramatiq.__name__, "--processes", str(_PROCESSES)]
        env = {peer_dramatiq.BROKER: url, marks.ENVIRONMENT: str(path)}
        worker = servers.start("dramatiq", [sys.executable, "-m", *command], env=env)
        until(lambda: worker.said().count("is ready for action") >= _PROCESSES, "Dramatiq's workers are ready", worker)

        def send(number: int) -> None:
            for _ in range(number):
                broker.enqueue(peer_dramatiq.note.message(time.time()))

        with running([worker]) as workers:
            yield send, workers
        broker.close()


@contextmanager
def _taskiq(servers: Servers, path: Path) -> Iterator[tuple[Send, list[Process]]]:
    """A hundred tasks at a time in each process's loop."""
    with servers.vhost() as url:
        command = ["taskiq", "worker", f"{peer_taskiq.__name__}:broker", "--workers", str(_PROCESSES)]
        env = {peer_taskiq.BROKER: url, marks.ENVIRONMENT: str(path)}
        worker = servers.start("taskiq", [sys.executable, "-m", *command], env=env)
        until(lambda: worker.said().count("Listening started") >= _PROCESSES, "Taskiq's workers listen", worker)
        with running([worker]) as workers, asyncio.Runner() as runner:
            broker = AioPikaBroker(url)
            runner.run(broker.startup())

            async def kick(number: int) -> None:
                for first in range(0, number, _WINDOW):
                    size = min(_WINDOW, number - first)
                    kicker = peer_taskiq.note.kicker().with_broker(broker)
                    await asyncio.gather(*(kicker.kiq(time.time()) for _ in range(size)))

            yield (lambda number: runner.run(kick(number))), workers
            runner.run(broker.shutdown())
