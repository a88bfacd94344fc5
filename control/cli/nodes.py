"""`afterlive nodes`: media workers, and what each can encode with."""

from __future__ import annotations

import json

import click

from control.cli.ledger import ledger_at_hand
from control.cli.tables import table
from control.ledger import node_views
from control.ledger.node_views import NodeView
from control.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of lines.")
def nodes(as_json: bool) -> None:
    """Show media workers: who is alive, what each takes from, which encoders work there, and why others do not.

    Works on the database (AFTERLIVE_DATABASE_URL) directly, whether or not anything else runs.
    """
    settings = Settings()
    with ledger_at_hand(settings.ledger) as ledger, ledger.read() as session:
        found = node_views.known(session, settings.media.node_lost_seconds)
    if as_json:
        click.echo(json.dumps({"items": [node.model_dump(mode="json") for node in found]}, indent=2))
    elif not found:
        click.echo("There are none: media workers tell what they can when they start ('afterlive worker media').")
    else:
        columns = {"name": "NODE", "state": "STATE", "heard_at": "HEARD", "queues": "QUEUES", "encoders": "ENCODERS"}
        table([_row(node) for node in found], columns)
        for node in found:
            _tell_what_does_not_work(node)


def _row(node: NodeView) -> dict[str, object]:
    encoders = ", ".join(node.encoders) or "none"
    return node.model_dump() | {
        "queues": ", ".join(node.queues),
        "encoders": f"{encoders} (refuses its processors)" if node.refuses_cpu else encoders,
    }


def _tell_what_does_not_work(node: NodeView) -> None:
    for can in node.capabilities:
        if not can.usable:
            click.echo(f"{node.name}: {can.encoder} ({can.tier}) on {can.device} does not work: {can.reason}")
