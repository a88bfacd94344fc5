"""From sending a message to the start of its task, at 100 a second: the machine idle, and media on every core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from control.bus.publish import send
from tests.benchmarks.bus import marks, ours, plain
from tests.benchmarks.bus.media import Media, make_media
from tests.benchmarks.bus.servers import Servers, kill_tree, processor_seconds, until
from tests.platform import Process

_RATE: Final = 100
# What a process does for the first time (connections, imports) is not what is measured.
_WARM_UP: Final = 50


@dataclass(frozen=True)
class Spread:
    """Milliseconds in which half, 95 and 99 of a hundred tasks had started."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(entries: list[tuple[float, float]]) -> Spread:
        waits = sorted((started - sent) * 1000 for sent, started in entries)
        p50, p95, p99 = (waits[min(len(waits) - 1, int(len(waits) * share))] for share in (0.5, 0.95, 0.99))
        return Spread(p50, p95, p99)


def main(servers: Servers, seconds: float) -> None:
    """The four, one after the other, and their ratios."""
    print(f"latency: {_RATE} messages/s for {seconds:.0f} s each, sent to started, milliseconds", flush=True)
    print(f"  {'':34} {'p50':>8} {'p95':>8} {'p99':>8}   cores busy  with media")
    media = make_media(servers)
    quiet = measure_ours(servers, seconds, None)
    measure_plain(servers, seconds, None)
    loaded = measure_ours(servers, seconds, media)
    theirs = measure_plain(servers, seconds, media)
    print(f"  ratio, our p99: under media / idle           {loaded.p99 / quiet.p99:8.2f}   (bar: at most 2.5)")
    print(f"  ratio, p99 under media: ours / plain Celery  {loaded.p99 / theirs.p99:8.2f}   (bar: at most 0.33)")


def measure_ours(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """Confirmed, to a quorum queue, `afterlive worker fast`."""
    path = servers.marks()
    with servers.bus() as bus:
        worker = bus.worker("fast", path)

        def one() -> None:
            send(bus.app, ours.NOTE, {"sent": time.time()})

        try:
            return _measure(
                f"afterlive, {_load(media)}", one, media.ours(bus) if media else nullcontext(), path, seconds
            )
        finally:
            kill_tree(worker)


def measure_plain(servers: Servers, seconds: float, media: Media | None) -> Spread:
    """`delay()`, a classic queue, `celery worker`."""
    path = servers.marks()
    with servers.vhost() as url, plain.sender(servers, url) as sender:
        worker = plain.worker(servers, url, env={marks.ENVIRONMENT: str(path)})

        def one() -> None:
            sender.send_task(plain.note.name, [time.time()])

        try:
            return _measure(
                f"plain Celery, {_load(media)}",
                one,
                media.plain(url, sender) if media else nullcontext(),
                path,
                seconds,
            )
        finally:
            kill_tree(worker)


def _load(media: Media | None) -> str:
    return "media on every core" if media else "idle"


def _measure(
    label: str, one: Callable[[], None], load: AbstractContextManager[Process | None], path: Path, seconds: float
) -> Spread:
    with load as media:
        _send(one, _WARM_UP)
        until(lambda: marks.count(path) == _WARM_UP, "the first tasks have run", seconds=120)
        number = round(seconds * _RATE)
        psutil.cpu_percent()
        encoded, began = processor_seconds(media) if media else 0.0, time.monotonic()
        _send(one, number)
        busy = psutil.cpu_percent()
        if media:
            encoded = (processor_seconds(media) - encoded) / (time.monotonic() - began) / (os.cpu_count() or 1) * 100
        until(lambda: marks.count(path) == _WARM_UP + number, "all tasks have run", seconds=120)
    spread = Spread.of(sorted(marks.read(path))[_WARM_UP:])
    figures = f"{spread.p50:8.1f} {spread.p95:8.1f} {spread.p99:8.1f}"
    print(f"  {label:34} {figures}   {busy:9.0f} % {encoded:9.0f} %", flush=True)
    return spread


def _send(one: Callable[[], None], number: int) -> None:
    """At an even pace. After a stall the rest follows at once, as customers would."""
    start = time.monotonic()
    for position in range(number):
        pause = start + position / _RATE - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        one()
