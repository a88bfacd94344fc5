"""Local folders for work in progress: one a task, gone when the task ends; what a crash left behind goes at start."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from control.settings import MediaSettings

_NAME: Final = re.compile(r"afterlive-(\d+)-")


@contextmanager
def scratch(settings: MediaSettings) -> Iterator[Path]:
    """A fresh folder, removed with all it holds at the end of the block."""
    root = _root(settings)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"afterlive-{os.getpid()}-", dir=root, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def clean_scratch(settings: MediaSettings) -> int:
    """Remove the folders of processes that are no more; how many there were."""
    removed = 0
    root = _root(settings)
    for folder in root.glob("afterlive-*-*") if root.is_dir() else ():
        found = _NAME.match(folder.name)
        if found and folder.is_dir() and not _alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _root(settings: MediaSettings) -> Path:
    return settings.scratch or Path(tempfile.gettempdir())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
