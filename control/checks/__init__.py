"""What works here, and how to mend what does not: the form of a check, and where checks come from.

A tier's checks are a function `(Settings) -> Iterable[Check]` under the entry-point group `afterlive.checks`; so a
machine is asked only about the tiers that are installed on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Final

from control.settings import Settings

GROUP: Final = "afterlive.checks"


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    INFO = "info"
    """Not here, and not needed."""
    WARN = "warn"
    """Works, but not as it should."""
    FAIL = "fail"
    """Something required does not work."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    """What was found, one line."""
    remedy: str | None = None
    """What to do, one line; None where nothing is to be done."""


def ok(name: str, detail: str) -> Check:
    """It works."""
    return Check(name, Status.OK, detail)


def info(name: str, detail: str) -> Check:
    """It is not here, and not needed."""
    return Check(name, Status.INFO, detail)


def warn(name: str, detail: str, remedy: str) -> Check:
    """It works, but not as it should."""
    return Check(name, Status.WARN, detail, remedy)


def fail(name: str, detail: str, remedy: str) -> Check:
    """Something required does not work."""
    return Check(name, Status.FAIL, detail, remedy)


def run_checks(settings: Settings) -> Iterator[Check]:
    """The checks of every installed tier, each as soon as it is done. A tier whose checks break is itself a finding."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        name = f"checks of {entry.name}"
        try:
            found: Iterable[Check] = entry.load()(settings)
            yield from found
        except ImportError as error:
            yield fail(name, f"a package is missing: {error}", f"install afterlive[{entry.name}]")
        except Exception as error:  # noqa: BLE001 the doctor must tell of all ills, its own too
            yield fail(name, f"{type(error).__name__}: {error}", "this is a fault of Afterlive; please report it")
