"""The bus beside others on the same servers, in one run. Ratios count; figures are this machine's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.benchmarks.bus import facts, latency, orders, otp, throughput
from tests.benchmarks.bus.servers import private_servers
from tests.house import system

SECONDS: Final = 20.0
ALL: Final = "all"
PARTS: Final = (ALL, "latency", "otp", "orders", "facts", "throughput")
_TASKS_A_SECOND: Final = 250
_AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")


def main(seconds: float = SECONDS, part: str = ALL) -> None:
    """Each measurement takes about `seconds`. RabbitMQ, Redis and PostgreSQL are installed where that may be done."""
    if system.main(["rabbitmq", "redis", "postgresql"]):
        raise SystemExit(1)
    with (
        _one_group(),
        tempfile.TemporaryDirectory(prefix="afterlive-bench-bus-") as folder,
        private_servers(Path(folder)) as servers,
    ):
        if part in (ALL, "latency"):
            latency.main(servers, seconds)
        if part in (ALL, "otp"):
            otp.main(servers, seconds)
        if part in (ALL, "orders"):
            orders.main(servers, seconds)
        if part in (ALL, "facts"):
            facts.main(servers, seconds)
        if part in (ALL, "throughput"):
            throughput.main(servers, round(seconds * _TASKS_A_SECOND))
    print(f"load after it: {os.getloadavg()[0]:.2f}")


@contextmanager
def _one_group() -> Iterator[None]:
    """A desktop's kernel gives each session an equal share, whatever runs in it: idle scheduling, and the peer's equal
    priority, count between services only where it does not, as in a server's control groups. For this run alone."""
    before = _AUTOGROUP.read_text() if _AUTOGROUP.exists() else "0"
    may = before.strip() == "1" and os.access(_AUTOGROUP, os.W_OK)
    if may:
        _AUTOGROUP.write_text("0")
    print(f"tasks grouped by session (sched_autogroup): {'off for this run' if may else before.strip()}", flush=True)
    try:
        yield
    finally:
        if may:
            _AUTOGROUP.write_text(before)
