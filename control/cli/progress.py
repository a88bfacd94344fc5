"""A replay's progress on a terminal: a bar where somebody watches, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from control.ledger.views import ReplayView

_LINE_EVERY_SECONDS: Final = 5.0


class _Speed(ProgressColumn):
    """Frames a second, × realtime, time left."""

    def render(self, task: Task) -> Text:
        view: ReplayView | None = task.fields.get("view")
        return Text(describe(view) if view else "", style="cyan")


def describe(view: ReplayView) -> str:
    """`42.1 fps · 1.40 × realtime · 0:31 left`"""
    if view.state != "transcoding":
        return view.state
    words = [f"{view.fps:.1f} fps", f"{view.speed:.2f} × realtime", f"chunk {view.chunks_done}/{view.chunks_total}"]
    if view.eta_seconds is not None:
        words.append(f"{clock(view.eta_seconds)} left")
    return " · ".join(words)


def clock(seconds: float) -> str:
    """`1:02:03` or `4:05`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def showing(title: str) -> Iterator[Callable[[ReplayView], None]]:
    """Gives a function to call with each look at the replay. Writes to stderr."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f} %"))
    with Progress(*columns, _Speed(), console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(title, total=1.0)
        yield lambda view: bar.update(row, completed=view.progress, view=view)


def _lines(title: str) -> Callable[[ReplayView], None]:
    last = float("-inf")
    state = ""

    def show(view: ReplayView) -> None:
        nonlocal last, state
        now = time.monotonic()
        if view.state != state or now - last >= _LINE_EVERY_SECONDS:
            last, state = now, view.state
            print(f"{title}: {view.progress:6.1%} {describe(view)}", file=sys.stderr, flush=True)

    return show
