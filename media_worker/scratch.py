"""Local folders for work in progress: one a task, gone when the task ends; what a crash left behind goes at start.

Whose a folder is, a lock says, which the kernel takes back when its process ends, however it does. A process id would
not do: in a container every worker has the same one, before a crash and after it, here and next door.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from control.settings import MediaSettings

_PREFIX: Final = "afterlive-"
_LOCK: Final = ".lock"


@contextmanager
def scratch(settings: MediaSettings) -> Iterator[Path]:
    """A fresh folder, removed with all it holds at the end of the block."""
    root = _root(settings)
    root.mkdir(parents=True, exist_ok=True)
    # First the lock, then the folder: there is no moment at which it seems to be nobody's.
    number, path = tempfile.mkstemp(prefix=_PREFIX, suffix=_LOCK, dir=root)
    lock = Path(path)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        folder = lock.with_suffix("")
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(lock)
        os.close(number)


def clean_scratch(settings: MediaSettings) -> int:
    """Remove the folders of processes that are no more; how many there were."""
    root = _root(settings)
    return sum(_remove_if_dead(lock) for lock in root.glob(f"{_PREFIX}*{_LOCK}")) if root.is_dir() else 0


def used_bytes(settings: MediaSettings) -> int:
    """Bytes of all work in progress under the folder, of this worker and of those it shares it with."""
    root = _root(settings)
    locks = root.glob(f"{_PREFIX}*{_LOCK}") if root.is_dir() else ()
    return sum(_size(lock.with_suffix("")) for lock in locks)


def disk_bytes(settings: MediaSettings) -> tuple[int, int]:
    """(free, all) of the disk the folder is on, or will be."""
    root = _root(settings).resolve()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    found = shutil.disk_usage(there)
    return found.free, found.total


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # finished and gone meanwhile
                total += Path(parent, name).lstat().st_size
    return total


def _remove_if_dead(lock: Path) -> bool:
    try:
        number = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False  # it ended just now, or is somebody else's
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # it lives
    else:
        _remove(lock)
        return True
    finally:
        os.close(number)


def _remove(lock: Path) -> None:
    """The folder first: what is left of a removal that was cut short still has its lock, and is found."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    with suppress(OSError):
        lock.unlink()


def _root(settings: MediaSettings) -> Path:
    return settings.scratch or Path(tempfile.gettempdir())
