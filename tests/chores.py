"""Tasks of the tests' own, for real workers: effects that are counted in the ledger, failures of every kind.

`tests.chore_worker` starts workers that have them.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from typing import Final

from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.context import current_delivery
from control.bus.names import Retry, TaskSpec
from control.bus.task import task
from control.bus.work import Work
from control.errors import InputError, TransientError
from control.ledger import tasks
from control.ledger.engine import Ledger, open_ledger
from control.settings import current

_METADATA: Final = MetaData()
EFFECTS: Final = Table(
    "test_effects",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("number", Integer),
    Column("task", String),
)


SPECS: Final[list[TaskSpec]] = []
"""Rows for the catalogue: of a worker's process for good, of a test's while it runs (`tests.bus.catalogued`)."""


def _spec(name: str, **changes: object) -> TaskSpec:
    row = TaskSpec(f"tests.{name}", names.HIGH, Retry(times=2, first_seconds=0.1), soft_seconds=30, hard_seconds=40)
    made = dataclasses.replace(row, **changes)  # type: ignore[arg-type]
    SPECS.append(made)
    return made


SELL = _spec("sell", key="number")
SLOW = _spec("slow")
FAIL = _spec("fail", secret=frozenset({"code"}))
STUMBLE = _spec("stumble")
LATE = _spec("late", deadline_seconds=2.0, secret=frozenset({"code"}))
DIE = _spec("die")
STUDIO = _spec("studio", queue=names.LOW)


@task(SELL)
def sell(number: int) -> None:
    _count(number)


@task(SLOW)
def slow(number: int, seconds: float) -> None:
    time.sleep(seconds)
    _count(number)


@task(FAIL)
def fail(number: int, code: str, passes: bool = False) -> None:
    if passes:
        raise TransientError(reason=f"the carrier is busy with {code}")
    raise InputError(source="this", reason=f"{code} is no number")


@task(STUMBLE)
def stumble(number: int) -> None:
    raise InputError(source="this", reason="it never works")


@task(LATE)
def late(number: int, code: str) -> None:
    _count(number)


@task(DIE)
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(STUDIO)
def studio(number: int, seconds: float, folder: str, work: Work) -> None:
    """Long work of the media tier: a line in a file for each start and each end."""
    delivery = current_delivery()
    with open(f"{folder}/{number}", "a", encoding="ascii") as file:  # noqa: PTH123
        print("start", delivery.attempt if delivery else 0, os.getpid(), file=file, flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work.check()
            time.sleep(0.02)
        print("end", file=file, flush=True)


def _count(number: int) -> None:
    delivery = current_delivery()
    name = delivery.task if delivery else ""

    def effect(session: Session) -> None:
        session.execute(insert(EFFECTS).values(number=number, task=name))

    tasks.once(open_ledger(current().ledger.url), effect)


def prepare(ledger: Ledger) -> None:
    """Make the table effects are counted in."""
    with ledger.write() as session:
        _METADATA.create_all(session.connection())


def effects(ledger: Ledger) -> tuple[int, int]:
    """How many effects there were, and of how many different numbers."""
    with ledger.read() as session:
        count, distinct = session.execute(select(func.count(), func.count(func.distinct(EFFECTS.c.number)))).one()
    return int(count), int(distinct)
