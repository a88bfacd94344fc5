"""`afterlive doctor`: what works here, and how to mend what does not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from control.checks import Check, Status, run_checks
from control.settings import current

_STYLES: Final = {
    Status.OK: ("ok", "green"),
    Status.INFO: ("--", "dim"),
    Status.WARN: ("warning", "yellow"),
    Status.FAIL: ("FAILED", "bold red"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document instead of lines.")
def doctor(as_json: bool) -> None:
    """Show what works here (ffmpeg, encoders, codecs, disk, database, …), and how to mend what does not.

    Exit status: 0 where everything required works, 1 where something does not.
    """
    console = Console()
    found: list[Check] = []
    for check in run_checks(current()):
        found.append(check)
        if not as_json:
            _show(console, check)
    failed = sum(check.status is Status.FAIL for check in found)
    warned = sum(check.status is Status.WARN for check in found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        console.print(
            f"\n{len(found)} checks: {failed} failed, {warned} with a warning"
            if failed or warned
            else f"\n{len(found)} checks: all is well"
        )
    sys.exit(1 if failed else 0)


def _show(console: Console, check: Check) -> None:
    word, style = _STYLES[check.status]
    line = Text.assemble((f"{word:>7}", style), "  ", (f"{check.name}: ", "bold"), check.detail)
    console.print(line, soft_wrap=True)
    if check.remedy:
        console.print(Text(f"         → {check.remedy}", style), soft_wrap=True)
