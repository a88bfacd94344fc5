"""`afterlive cleanup`: streams that are over for long, to look through and to have removed."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import click

from control.bus import names
from control.cli.ledger import ledger_at_hand
from control.cli.tables import table
from control.ledger import outbox, retention
from control.ledger.base import now
from control.settings import LedgerSettings, RetentionSettings

_SHOWN: Final = 1000


@click.command()
@click.option("--apply", "really", is_flag=True, help="Have them removed, by the workers.")
@click.option(
    "--older-than", "days", type=click.IntRange(1), metavar="DAYS", help="Instead of AFTERLIVE_RETENTION_DAYS."
)
def cleanup(really: bool, days: int | None) -> None:
    """Show the streams whose replay ended too long ago to be kept; with --apply, have them removed.

    Their replays and events go; recordings, figures and sales stay. Live streams and replays that are being made are
    never touched.
    """
    days = days or RetentionSettings().days
    if not days:
        click.echo("Streams are kept for ever: set AFTERLIVE_RETENTION_DAYS, or give --older-than.")
        return
    with ledger_at_hand(LedgerSettings()) as ledger:
        with ledger.read() as session:
            found = retention.page(session, now() - timedelta(days=days), limit=_SHOWN + 1)
        if not found:
            click.echo(f"No stream is older than {days} days.")
            return
        columns = {"stream_id": "STREAM", "ended_at": "ENDED", "state": "REPLAY", "title": "TITLE"}
        table([vars(old) for old in found[:_SHOWN]], columns)
        if len(found) > _SHOWN:
            click.echo(f"… and more than these {_SHOWN}.")
        if not really:
            click.echo("Nothing was removed: --apply has it done.")
            return
        with ledger.write() as session:
            task_id = outbox.add(session, names.CLEANUP_OLD_STREAMS, {"days": days, "apply": True})
    click.echo(f"They will be removed by the task {task_id} (afterlive task {task_id}).")
