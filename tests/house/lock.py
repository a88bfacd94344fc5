"""`python -m tests.house.lock`: is requirements.lock in step with pyproject.toml? Offline.

The lock says behind each version who wanted it (`# via afterlive (pyproject.toml)`); those entries must be exactly the
requirements of pyproject.toml, at versions that satisfy them, each with hashes, and nothing may be an address.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^ ;]+)(?P<marker> ; .*?)?( \\)?$")
_OURS = re.compile(r"afterlive \(pyproject\.toml")


@dataclass
class Pin:
    """One version in the lock. A package may have several, for different machines."""

    name: str
    version: str
    hashes: int = 0
    direct: bool = False


def requirements(pyproject: str) -> list[Requirement]:
    """All direct requirements: base, every extra, every dependency group."""
    document = tomllib.loads(pyproject)
    project = document["project"]
    lists = [
        project.get("dependencies", []),
        *project.get("optional-dependencies", {}).values(),
        *document.get("dependency-groups", {}).values(),
    ]
    parsed = [Requirement(text) for each in lists for text in each]
    return [each for each in parsed if canonicalize_name(each.name) != project["name"]]


def pins(lock: str) -> list[Pin]:
    """The versions of a lock file."""
    found: list[Pin] = []
    for line in lock.splitlines():
        if match := _PIN.match(line):
            found.append(Pin(canonicalize_name(match["name"]), match["version"]))
        elif found:
            found[-1].hashes += line.strip().startswith("--hash=sha256:")
            found[-1].direct |= bool(_OURS.search(line))
    return found


def problems(pyproject: str, lock: str) -> Iterator[str]:
    """What is out of step, a line each."""
    if re.search(r"https?:|^-|@ ", lock, re.MULTILINE):
        yield "it holds an address or an option"
    locked = pins(lock)
    yield from (f"{pin.name} {pin.version} has no hash" for pin in locked if not pin.hashes)
    wanted = requirements(pyproject)
    for each in wanted:
        versions = [pin.version for pin in locked if pin.name == canonicalize_name(each.name)]
        if not versions:
            yield f"{each.name} is not in it"
        elif not all(each.specifier.contains(version, prereleases=True) for version in versions):
            yield f"{each} is wanted, {', '.join(versions)} is locked"
    names = {canonicalize_name(each.name) for each in wanted}
    yield from (f"{pin.name} is in it, and nothing wants it" for pin in locked if pin.direct and pin.name not in names)


def main() -> int:
    """Exit status: 1 where the lock is out of step."""
    found = list(
        problems((ROOT / "pyproject.toml").read_text("utf-8"), (ROOT / "requirements.lock").read_text("utf-8"))
    )
    for each in found:
        print(f"requirements.lock: {each}")
    print("run 'make lock'" if found else "requirements.lock: in step with pyproject.toml")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
