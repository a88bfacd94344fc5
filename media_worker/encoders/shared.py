"""Where the media workers of one node share what they know of its devices: a folder beside their scratch folders.

Locks in it are the kernel's (`flock`): of a process that ends, however it does, they are taken back. Containers that
share a GPU must share this folder too, or each counts its own sessions.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control.settings import MediaSettings


def folder(settings: MediaSettings) -> Path:
    """Made where it is missing."""
    root = settings.scratch or Path(tempfile.gettempdir())
    made = root / f"encoders-{os.getuid()}"
    made.mkdir(parents=True, exist_ok=True, mode=0o700)
    return made


def file_name(device: str) -> str:
    """A device's name as a file's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time: for a moment."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def replace(path: Path, text: str) -> None:
    """Write a file that readers see whole, old or new."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
