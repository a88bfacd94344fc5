"""The bus beside others on the same servers, in one run. Ratios count; figures are this machine's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from tests.benchmarks.bus import facts, latency, throughput
from tests.benchmarks.bus.servers import private_servers
from tests.house import system

SECONDS: Final = 20.0
ALL: Final = "all"
PARTS: Final = (ALL, "latency", "facts", "throughput")
_TASKS_A_SECOND: Final = 250


def main(seconds: float = SECONDS, part: str = ALL) -> None:
    """Each measurement takes about `seconds`. RabbitMQ, Redis and PostgreSQL are installed where that may be done."""
    if system.main(["rabbitmq", "redis", "postgresql"]):
        raise SystemExit(1)
    with tempfile.TemporaryDirectory(prefix="afterlive-bench-bus-") as folder, private_servers(Path(folder)) as servers:
        if part in (ALL, "latency"):
            latency.main(servers, seconds)
        if part in (ALL, "facts"):
            facts.main(servers, seconds)
        if part in (ALL, "throughput"):
            throughput.main(servers, round(seconds * _TASKS_A_SECOND))
    print(f"load after it: {os.getloadavg()[0]:.2f}")
