"""`afterlive task ID`: how a task is doing, and how it ended."""

from __future__ import annotations

import click

from control.bus import live
from control.cli.ledger import ledger_at_hand
from control.cli.tables import facts
from control.ledger import task_views
from control.settings import Settings


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of lines.")
def task(task_id: str, as_json: bool) -> None:
    """Show the task ID: the same as GET /tasks/ID of the API."""
    settings = Settings()
    live.use(settings.bus)
    with ledger_at_hand(settings.ledger) as ledger, ledger.read() as session:
        known = task_views.known(session, task_id)
    view = task_views.with_live(known, live.look(task_id))
    if as_json:
        click.echo(view.model_dump_json(indent=2))
    else:
        facts(view.model_dump())
