"""`afterlive migrate`: the database's schema, before anything uses it."""

from __future__ import annotations

import logging

import click

from control.cli.logs import quiet_logs
from control.settings import Settings, use


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date, and end.

    Run it once before the first start and after each upgrade. One of these at a time; where it runs, no API needs
    --migrate.
    """
    from control.ledger.engine import open_ledger

    settings = Settings()
    use(settings)
    quiet_logs(logging.WARNING)
    ledger = open_ledger(settings.ledger.url)
    try:
        ledger.upgrade()
    finally:
        ledger.close()
    click.echo("the database's schema is up to date")
