"""Tables for people; programs ask for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NARROWEST: Final = 20


def facts(shown: Mapping[str, Any]) -> None:
    """Name and value, a line each; what is not known is left out."""
    console = Console()
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        if value is not None and value != []:
            line = Text.assemble(
                (name.ljust(width), "bold"), "  ", _word(value).replace("\n", "\n" + " " * (width + 2))
            )
            console.print(line, soft_wrap=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """`columns`: field → heading. Only the last is cut off, where a terminal has no room for it."""
    console = Console()
    cells = [[_word(row[name]).replace("\n", " ") if row[name] is not None else "" for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns.values(), *cells, strict=True)]
    room = console.width - sum(widths[:-1]) - 2 * len(widths)
    if console.is_terminal:
        widths[-1] = min(widths[-1], max(room, _NARROWEST))
    console.width = sum(widths) + 2 * len(widths)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, width in zip(columns.values(), widths, strict=True):
        made.add_column(heading, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        made.add_row(*map(Text, row))  # as text: what an error says is no markup
    console.print(made)


def _word(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, dict | list):
        return json.dumps(value, indent=2, ensure_ascii=False, default=_word)
    return str(value)
