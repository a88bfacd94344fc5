"""`afterlive failed`: tasks that failed finally, to look through, to do again or to put aside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from control.cli.ledger import actor, ledger_at_hand
from control.cli.tables import facts, table
from control.ledger import failures, many, task_views
from control.ledger.engine import Ledger
from control.ledger.many import Act, Outcome
from control.settings import LedgerSettings

_REASONS: Final = ("failed", "expired", "refused", "poison", "unroutable")
_STATES: Final = ("open", "replayed", "discarded", "all")
_BATCH: Final = 500
_task = click.option("--task", help="Only those of this task, as media.transcode_chunk.")
_reason = click.option("--reason", type=click.Choice(_REASONS), help="Only those that failed so.")
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of lines.")


def _chosen(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that does something to some of them."""
    for option in (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        _task,
        _reason,
        click.option("--all", "every", is_flag=True, help="All that are open (of --task, of --reason)."),
        click.option("--limit", type=click.IntRange(1), help="With --all: at most so many, the oldest first."),
        click.option("--yes", "-y", is_flag=True, help="Ask nothing."),
        _json,
    )[::-1]:  # fmt: skip
        function = option(function)
    return function


@click.group()
def failed() -> None:
    """Tasks that failed finally: look through them, do them again, put them aside.

    Works on the database (AFTERLIVE_DATABASE_URL) directly, whether or not anything else runs.
    """


@failed.command("list")
@_task
@_reason
@click.option("--state", type=click.Choice(_STATES), default="open", show_default=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@_json
def list_(task: str | None, reason: str | None, state: str, limit: int, as_json: bool) -> None:
    """Show failed tasks, newest first."""
    wanted = None if state == "all" else state
    with ledger_at_hand(LedgerSettings()) as ledger, ledger.read() as session:
        items, following = task_views.failed_page(
            session, limit=limit, after=None, task=task, reason=reason, state=wanted
        )
    if as_json:
        _print({"items": [item.model_dump(mode="json") for item in items], "next": following})
    elif not items:
        click.echo("There are none.")
    else:
        columns = {"id": "ID", "failed_at": "FAILED", "task": "TASK", "reason": "REASON", "key": "KEY"}
        columns |= {} if state == "open" else {"state": "STATE"}
        table([item.model_dump() for item in items], columns | {"detail": "DETAIL"})
        if following:
            click.echo("There are more: --limit shows them.")


@failed.command()
@click.argument("failed_id", metavar="ID")
@_json
def show(failed_id: str, as_json: bool) -> None:
    """Show all that is known of the failed task ID: its arguments, where it failed, who did what about it."""
    with ledger_at_hand(LedgerSettings()) as ledger, ledger.read() as session:
        found = task_views.failed_detail(session, failed_id)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        facts(found.model_dump())


@failed.command()
@_chosen
def replay(**options: Any) -> None:
    """Have failed tasks done again: those of the IDs, or --all.

    Exit status: 0 where each will be, 1 where one was refused; it is named, with the reason.
    """
    by = actor()
    _each("replay", "replayed", lambda session, failed_id: failures.replay(session, failed_id, by), **options)


@failed.command()
@_chosen
@click.option("--note", help="Why nobody will do them again.")
def discard(note: str | None, **options: Any) -> None:
    """Put failed tasks aside: those of the IDs, or --all. They stay in the database.

    Exit status: 0 where each was, 1 where one was refused; it is named, with the reason.
    """
    by = actor()
    _each("discard", "discarded", lambda session, failed_id: failures.discard(session, failed_id, by, note), **options)


def _each(
    verb: str,
    done: str,
    act: Act,
    *,
    ids: Sequence[str],
    task: str | None,
    reason: str | None,
    every: bool,
    limit: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(ids) == every or (ids and (task or reason or limit)):
        raise click.UsageError("give either IDs, or --all with or without --task, --reason and --limit")
    with ledger_at_hand(LedgerSettings()) as ledger:
        if ids:
            outcome = many.each(ledger, dict.fromkeys(ids), act)
        else:
            with ledger.read() as session:
                found = min(many.count(session, task=task, reason=reason), limit or sys.maxsize)
            if found > 1 and not yes:
                click.confirm(f"{verb.capitalize()} {found} failed tasks?", abort=True, err=True)
            outcome = _all(ledger, act, found, task, reason)
    if as_json:
        _print(outcome.model_dump())
    else:
        click.echo(f"{outcome.count} {done}" + (f", {len(outcome.refused)} refused" if outcome.refused else ""))
        for one in outcome.refused:
            click.echo(f"{one.id}: {one.code}: {one.detail}", err=True)
    if outcome.refused:
        sys.exit(1)


def _all(ledger: Ledger, act: Act, found: int, task: str | None, reason: str | None) -> Outcome:
    """Of the oldest `found`: no more than were agreed to, should others fail meanwhile."""
    total, after, looked = many.Outcome(count=0, done=[], refused=[]), None, 0
    while looked < found:
        with ledger.read() as session:
            size = min(_BATCH, found - looked)
            ids = many.chosen(session, limit=size, after=after, task=task, reason=reason)
        if not ids:
            break
        total = total.with_more(many.each(ledger, ids, act))
        after, looked = ids[-1], looked + len(ids)
    return total


def _print(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
