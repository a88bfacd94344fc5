"""Our tasks. `python -m tests.benchmarks.bus.ours worker fast` is `afterlive worker fast` with these besides."""

from __future__ import annotations

import dataclasses
import sys
from typing import Final

from sqlalchemy import Column, Double, Integer, MetaData, Table, insert
from sqlalchemy.orm import Session

from control.bus import app as bus_app
from control.bus import names
from control.bus.names import CATALOGUE, Retry, TaskSpec
from control.bus.task import task
from control.ledger import tasks
from control.ledger.engine import Ledger, open_ledger
from control.settings import current
from tests.benchmarks.bus.marks import mark

_METADATA: Final = MetaData()
_EFFECTS: Final = Table("bench_effects", _METADATA, Column("id", Integer, primary_key=True), Column("sent", Double))


def _spec(name: str) -> TaskSpec:
    made = TaskSpec(f"bench.{name}", names.HIGH, Retry(times=5), soft_seconds=30, hard_seconds=40)
    CATALOGUE[made.name] = made
    return made


NOTE: Final = _spec("note")
NOTE_ONCE: Final = _spec("note_once")


@task(NOTE)
def note(sent: float) -> None:
    mark(sent)


@task(NOTE_ONCE)
def note_once(sent: float) -> None:
    """As `note`, with an effect in the ledger that counts once however often the message comes: the inbox."""

    def effect(session: Session) -> None:
        session.execute(insert(_EFFECTS).values(sent=sent))

    if tasks.once(open_ledger(current().ledger.url), effect):
        mark(sent)


def prepare(ledger: Ledger) -> None:
    """Make the table of effects."""
    with ledger.write() as session:
        _METADATA.create_all(session.connection())


def main() -> None:
    from control.cli import main as afterlive

    fast = bus_app.TIERS["fast"]
    bus_app.TIERS["fast"] = dataclasses.replace(fast, modules=(*fast.modules, "tests.benchmarks.bus.ours"))
    sys.argv[0] = "afterlive"
    afterlive()


if __name__ == "__main__":
    # The module the worker loads must be the one the tasks are registered by.
    from tests.benchmarks.bus import ours

    ours.main()
