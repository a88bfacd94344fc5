"""`python -m tests.house.system NEED…`: what tests need of the operating system, installed where that is possible.

As root, with apt-get: it is installed. Otherwise one line says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """A program that comes with the operating system, under any of several names."""

    programs: tuple[str, ...]
    package: str
    """Of Debian."""
    places: tuple[str, ...] = ()
    """Where Debian puts those that are on nobody's path: patterns of folders, under the root."""
    files: tuple[str, ...] = ()
    """Where it is no program: patterns of files, under the root."""


NEEDS = {
    "chromium": Need(("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "buildah": Need(("buildah",), "buildah"),
    "mmdebstrap": Need(("mmdebstrap",), "mmdebstrap"),
    "rabbitmq": Need(("rabbitmq-server",), "rabbitmq-server", places=("usr/lib/rabbitmq/bin",)),
    "prometheus": Need(("prometheus",), "prometheus"),
    "redis": Need(("redis-server",), "redis-server"),
    "vulkan": Need((), "mesa-vulkan-drivers", files=("usr/share/vulkan/icd.d/lvp_icd*.json",)),
    "postgresql": Need(("initdb",), "postgresql", places=("usr/lib/postgresql/*/bin",)),
}


def find(need: Need) -> str | None:
    """Path of the first of its programs, or files, that is here."""
    for pattern in need.files:
        for found in Path("/").glob(pattern):
            return str(found)
    folders = [None, *(folder for pattern in need.places for folder in sorted(Path("/").glob(pattern), reverse=True))]
    return next((path for name in need.programs for at in folders if (path := shutil.which(name, path=at))), None)


def install(packages: list[str]) -> str | None:
    """Install Debian packages; None, or why that was not possible."""
    if shutil.which("apt-get") is None:
        return "this machine has no apt-get"
    if os.geteuid() != 0:
        return "only root may install"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"apt-get {command[0]} failed: {_last_line(done.stderr or done.stdout)}"
    return None


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["it said nothing"])[-1]


def main(names: list[str]) -> int:
    """Exit status: 0 where every need is met now."""
    missing = [NEEDS[name] for name in names if find(NEEDS[name]) is None]
    if not missing:
        return 0
    packages = [need.package for need in missing]
    print(f"installing {', '.join(packages)}", flush=True)
    problem = install(packages) or next(
        (f"{need.package} is still not here" for need in missing if not find(need)), None
    )
    if problem:
        print(f"error: the tests need {', '.join(packages)}, and {problem}; install it and run again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
