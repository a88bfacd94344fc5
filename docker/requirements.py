"""`python3 docker/requirements.py NAME…`: the part of requirements.lock that one image installs, with its hashes.

A NAME is an extra of pyproject.toml (with what every tier needs), `base` for the latter alone, or a package. The lock
says behind each version who wanted it (`# via`); from the wanted down, that is the graph. Needs the standard library
alone: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?")
_WANTED_BY = re.compile(r"^    #(?: via)? +(\S+)( \(|$)")


@dataclass
class Entry:
    """One version in the lock: its lines, and the packages that want it."""

    name: str
    lines: list[str] = field(default_factory=list)
    wanted_by: set[str] = field(default_factory=set)


def entries(lock: str) -> list[Entry]:
    """The lock's versions, in its order. A package may have several, each for other machines."""
    found: list[Entry] = []
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            found.append(Entry(canonical(pin[1]), [line]))
        elif wanted := _WANTED_BY.match(line):
            found[-1].wanted_by.add(canonical(wanted[1]))
        elif line.startswith("    --hash="):
            found[-1].lines.append(line)
    return found


def wanted(pyproject: str, names: Iterable[str]) -> set[str]:
    """The packages that `names` ask for directly."""
    project = tomllib.loads(pyproject)["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found: set[str] = set()
    for name in names:
        if name != "base" and name not in extras:
            found.add(canonical(name))
            continue
        for text in (*project["dependencies"], *extras.get(name, ())):
            asked = _REQUIREMENT.match(text)
            if asked is None:
                raise SystemExit(f"error: {text!r} in pyproject.toml is not a requirement")
            if canonical(asked[1]) == project["name"]:
                found |= wanted(pyproject, (asked[2] or "base").replace(" ", "").split(","))
            else:
                found.add(canonical(asked[1]))
    return found


def subset(lock: str, roots: set[str]) -> str:
    """The lines of `roots` and of all they want. Exits where one of the roots is not in the lock."""
    all_of_it = entries(lock)
    if missing := roots - {entry.name for entry in all_of_it}:
        raise SystemExit(f"error: requirements.lock has no {', '.join(sorted(missing))}")
    chosen, before = set(roots), set[str]()
    while chosen != before:
        before = set(chosen)
        chosen |= {entry.name for entry in all_of_it if entry.wanted_by & chosen}
    lines = [line for entry in all_of_it if entry.name in chosen for line in entry.lines]
    return "\n".join(lines) + "\n"


def canonical(name: str) -> str:
    """As PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(names: list[str]) -> None:
    """Print what `names` need."""
    lock, pyproject = ((ROOT / name).read_text("utf-8") for name in ("requirements.lock", "pyproject.toml"))
    sys.stdout.write(subset(lock, wanted(pyproject, names)))


if __name__ == "__main__":
    main(sys.argv[1:])
