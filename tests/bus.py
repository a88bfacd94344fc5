"""An embedded bus for tests: real workers, real relay, and bodies of the test's own in place of the media tier's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pipelines.tasks  # noqa: F401  (known before any application is, or each would be told of it once more)
from control.bus import names
from control.bus.app import PIPELINES
from control.bus.embedded import Embedded
from control.bus.names import CATALOGUE, Retry, TaskSpec
from control.bus.task import task_of
from control.settings import Settings
from tests.ledgers import migrated

Body = tuple[TaskSpec, Callable[..., Any]]


@contextmanager
def bus(settings: Settings, *bodies: Body, modules: Sequence[str] = (PIPELINES,)) -> Iterator[Embedded]:
    """The back end with `bodies` as tasks of this application alone, until the block ends."""
    if settings.ledger.url.startswith("sqlite:"):
        migrated(settings.ledger.url).close()
    embedded = Embedded(settings, modules)
    for spec, function in bodies:
        task_of(embedded.app, spec, function)
    with embedded:
        yield embedded


def spec_of(name: str = "tests.work", **changes: Any) -> TaskSpec:
    """A row that is not in the catalogue, with a policy quick enough to wait for."""
    row = TaskSpec(name, names.DEFAULT, Retry(times=2, first_seconds=0.1), soft_seconds=30, hard_seconds=40)
    return dataclasses.replace(row, **changes)


@contextmanager
def catalogued(*specs: TaskSpec) -> Iterator[None]:
    """The catalogue with `specs` in it."""
    for spec in specs:
        assert spec.name not in CATALOGUE
        CATALOGUE[spec.name] = spec
    try:
        yield
    finally:
        for spec in specs:
            del CATALOGUE[spec.name]


def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return value
