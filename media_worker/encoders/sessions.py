"""How many encoders run on a device at a time, counted across the processes of a node: a file a session, locked while
it is used."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control.settings import MediaSettings
from media_worker.encoders import shared


def limit(settings: MediaSettings) -> int:
    return settings.sessions_per_device


def free(settings: MediaSettings, device: str) -> int:
    """Sessions nobody has at this moment."""
    held = [_try(path) for path in _slots(settings, device)]
    try:
        return sum(number is not None for number in held)
    finally:
        _close(held)


def used(settings: MediaSettings, device: str) -> int:
    return limit(settings) - free(settings, device)


@contextmanager
def take(settings: MediaSettings, device: str, wanted: int) -> Iterator[bool]:
    """Hold `wanted` sessions for the block, all or none; whether they were had."""
    held: list[int | None] = []
    root = shared.folder(settings)
    # Two that take one by one could each have half of what both want.
    with shared.locked(root / f"{shared.file_name(device)}.lock"):
        for path in _slots(settings, device):
            if len(held) == wanted:
                break
            if (number := _try(path)) is not None:
                held.append(number)
        enough = len(held) == wanted
        if not enough:
            _close(held)
            held = []
    try:
        yield enough
    finally:
        _close(held)


def _slots(settings: MediaSettings, device: str) -> list[Path]:
    root = shared.folder(settings)
    return [root / f"{shared.file_name(device)}.session-{number:03d}" for number in range(limit(settings))]


def _try(path: Path) -> int | None:
    """The open file, locked; None where another has it."""
    # Not inherited: an ffmpeg that outlives its worker for a moment must not keep the session.
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    return number


def _close(numbers: list[int | None]) -> None:
    for number in numbers:
        if number is not None:
            os.close(number)
