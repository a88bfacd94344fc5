"""`afterlive api`: the HTTP API in production, beside workers of their own."""

from __future__ import annotations

import logging

import click

from control import tracing
from control.cli.logs import quiet_logs
from control.errors import ConfigurationError
from control.settings import Settings, use


@click.command()
@click.option("--host", help="Address to listen on.  [default: AFTERLIVE_API_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: AFTERLIVE_API_PORT or 8000]")
@click.option("--migrate", is_flag=True, help="Bring the database's schema up to date first.")
def api(host: str | None, port: int | None, migrate: bool) -> None:
    """Serve the HTTP API until SIGTERM. What it accepts is in the database when it answers; its relay puts it on the
    bus as soon as the broker takes it.

    Any number of these may run on one database and one broker.
    """
    from control.api.app import create_app
    from control.bus.app import make_app
    from control.bus.publish import publisher_of
    from control.bus.relay import Relay
    from control.bus.topology import on_rabbitmq
    from control.cli.serve import Server
    from control.ledger.engine import open_ledger
    from control.storage import open_store

    settings = Settings()
    if not on_rabbitmq(settings.bus.broker_url.get_secret_value()):
        reason = "the API alone needs a broker of its own ('afterlive up' brings one); set amqp://… or amqps://…"
        raise ConfigurationError(setting="AFTERLIVE_BUS_BROKER_URL", reason=reason)
    use(settings)
    quiet_logs(logging.INFO)
    tracing.start(settings.tracing, "api")
    ledger = open_ledger(settings.ledger.url)
    if migrate:
        ledger.upgrade()
    bus = make_app(settings.bus)
    relay = Relay(ledger, bus)
    served = create_app(settings, ledger, open_store(settings.storage), wake=relay.wake, refresh=relay.look)
    relay.start()
    try:
        Server(served, host or settings.api.host, port or settings.api.port).run()
    finally:
        relay.stop()
        publisher_of(bus).close()
