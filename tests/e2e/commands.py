"""The real `afterlive` command, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

AFTERLIVE = Path(sys.executable).with_name("afterlive")


def environment(**more: str) -> dict[str, str]:
    """The machine's environment without anybody's Afterlive settings, but `more`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AFTERLIVE_")}
    return {**kept, **more}


def run(*arguments: str | Path, cwd: Path, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [AFTERLIVE, *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def started(*arguments: str | Path, cwd: Path, log: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running; killed at the end where it still is. Its output goes to `log`."""
    with (
        log.open("a") as file,
        subprocess.Popen(
            [AFTERLIVE, *arguments], cwd=cwd, env=environment(**env), stdout=file, stderr=file, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ffmpegs_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The encoders a command has running."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "ffmpeg" in child.name()]
    except psutil.NoSuchProcess:
        return []


def all_gone(processes: list[psutil.Process], *, seconds: float) -> bool:
    """Whether none of them runs any more `seconds` from now; a zombie has ended, whoever should have buried it.

    Seconds of a machine with a core for everybody: where other tests share them, as many times longer.
    """
    busy = max(1.0, psutil.getloadavg()[0] / (psutil.cpu_count() or 1))
    _, alive = psutil.wait_procs(processes, timeout=seconds * busy)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition: object, *, seconds: float, what: str) -> None:
    """Until `condition()` is true."""
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
