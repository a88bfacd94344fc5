"""`afterlive beat`: the clock, as a process of its own."""

from __future__ import annotations

import importlib
import logging
import signal

import click

from control.cli.logs import quiet_logs
from control.settings import Settings, use

_LOOK_EVERY_SECONDS = 5


@click.command()
@click.option("--show", is_flag=True, help="Print the schedule and end.")
def beat(show: bool) -> None:
    """Have scheduled tasks happen, until SIGTERM.

    Run two or more, on different machines: each tick happens once, whichever of them is quicker, and what fell due
    while none ran is made up for once. Its memory is the database; it needs no broker to decide, and sends through the
    outbox.
    """
    from control.bus.app import make_app
    from control.bus.beat import Clock
    from control.bus.publish import publisher_of
    from control.bus.relay import Relay
    from control.ledger.engine import open_ledger

    table = importlib.import_module("pipelines.schedule").SCHEDULE
    if show:
        for name, entry in sorted(table.items()):
            click.echo(f"{name:24} {entry['schedule']!s:40} {entry['task']}")
        return
    settings = Settings()
    use(settings)
    quiet_logs(logging.INFO)
    app = make_app(settings.bus, schedule=table)
    relay = Relay(open_ledger(settings.ledger.url), app)
    clock = Clock(app, _LOOK_EVERY_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: clock.stop())
    relay.start()
    try:
        clock.run()
    finally:
        relay.stop()
        publisher_of(app).close()
