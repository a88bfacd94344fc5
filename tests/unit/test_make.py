"""What make says, and what it installs of the operating system for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.hygiene import ROOT


def test_make_explains_itself() -> None:
    # Where make itself runs the tests, its own variables would have the inner one tell of folders.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(*targets: str) -> str:
        return subprocess.run(["make", *targets], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    listed = make("help")
    makefile = (ROOT / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert [line.split()[1] for line in listed.splitlines()] == phony
    assert make() == listed


def test_make_says_what_is_missing(tmp_path: Path) -> None:
    """Where there is no Python, one clear line and a failure."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tests/house/environment.py", "control/web/install.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "setup"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no Python 3.11 or later was found" in done.stderr
    assert not (tmp_path / ".venv").exists()


_FAKE_APT = """#!/bin/sh
echo "$@" >> apt.log
case "$1" in
    update) exit 0;;
    install) [ -e broken ] && { echo "E: no such package" >&2; exit 100; }
             printf '#!/bin/sh\n' > chromium; chmod +x chromium;;
esac
"""


def need_chromium(folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask for Chromium on a machine whose only programs are those in `folder`, and a shell's."""
    if not (folder / "chmod").exists():
        (folder / "chmod").symlink_to(shutil.which("chmod") or "")
    return subprocess.run(
        [sys.executable, "-m", "tests.house.system", "chromium"],
        cwd=folder,
        env={"PATH": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_root_installs_what_is_missing_once(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text(_FAKE_APT)
    (tmp_path / "apt-get").chmod(0o755)
    for _ in range(2):
        done = need_chromium(tmp_path)
        assert done.returncode == 0, done.stderr
    calls = (tmp_path / "apt.log").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["update", "install"]
    assert calls[1].split()[-1] == "chromium"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_an_installation_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text(_FAKE_APT)
    (tmp_path / "apt-get").chmod(0o755)
    (tmp_path / "broken").touch()
    done = need_chromium(tmp_path)
    assert done.returncode == 1
    assert "apt-get install failed: E: no such package" in done.stderr


def test_where_nothing_can_be_installed_one_line_says_what_is_needed(tmp_path: Path) -> None:
    done = need_chromium(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "chromium" in done.stderr
