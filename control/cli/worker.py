"""`afterlive worker TIER`: a thin face on Celery's worker."""

from __future__ import annotations

import logging
import os
import socket

import click

from control import tracing
from control.bus.app import TIERS
from control.cli.logs import quiet_logs
from control.settings import Settings, use


@click.command()
@click.argument("tier", type=click.Choice(sorted(TIERS)))
@click.option("--concurrency", type=click.IntRange(1), help="Tasks at a time.  [default: the tier's setting]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of /metrics and /healthz; 0 is none.")
@click.option("--name", help="What it is called, unique among its tier's.  [default: host name and process id]")
def worker(tier: str, concurrency: int | None, port: int | None, name: str | None) -> None:
    """Work on one tier's tasks until SIGTERM: `fast` (high_priority), `notify` (default) or `media` (low_priority).

    The exchanges and queues must be there: run 'afterlive topology' once. On SIGTERM a fast task is finished, a chunk
    goes back to the broker at once.
    """
    from control.bus.worker import Worker

    settings = Settings()
    use(settings)
    quiet_logs(logging.INFO)
    tracing.start(settings.tracing, tier)
    called = name or f"{socket.gethostname()}-{os.getpid()}"
    Worker(settings, tier, called, concurrency=concurrency, port=port).run()
