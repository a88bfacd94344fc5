"""A circuit breaker a device, shared by the processes of a node: a device that failed several times in a row is left
alone for a while, then tried by one chunk; each time it fails again it is left alone for twice as long."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from control.settings import MediaSettings
from media_worker.encoders import shared

log = logging.getLogger("afterlive.encoders")
THRESHOLD: Final = 3
WINDOW_SECONDS: Final = 600.0
FIRST_SECONDS: Final = 300.0
LONGEST_SECONDS: Final = 3600.0
_TRIAL_SECONDS: Final = 660.0  # a chunk's hard limit: so long a trial may take, then another one is allowed


@dataclass
class State:
    """What is remembered of a device; times are Unix seconds."""

    faults: int = 0
    """Since it last succeeded, the oldest not older than the window when it was counted."""
    last_fault: float = 0.0
    opened: float = 0.0
    """When it was opened; 0 is closed."""
    until: float = 0.0
    pause: float = 0.0
    trial: float = 0.0
    """When the one chunk that may try an open one began."""
    reason: str = ""


def state(settings: MediaSettings, device: str) -> State:
    """A damaged file (a full disk, another version's) is a device nothing is known of."""
    try:
        return State(**json.loads(_path(settings, device).read_text()))
    except (OSError, ValueError, TypeError):
        return State()


def is_open(settings: MediaSettings, device: str, now: float | None = None) -> bool:
    """Whether the device is to be left alone."""
    found = state(settings, device)
    now = time.time() if now is None else now
    return bool(found.opened) and (now < found.until or now - found.trial < _TRIAL_SECONDS)


def allow(settings: MediaSettings, device: str, now: float | None = None) -> bool:
    """Whether a chunk may use the device now. Of one that is open, after its pause, one chunk may: who asks first."""
    now = time.time() if now is None else now
    if not state(settings, device).opened:
        return True
    with _changing(settings, device) as found:
        if not found.opened:
            return True
        if now < found.until or now - found.trial < _TRIAL_SECONDS:
            return False
        found.trial = now
        log.warning("%s is tried once more after %.0f s", device, found.pause)
        return True


def succeeded(settings: MediaSettings, device: str) -> None:
    """A chunk was made on it."""
    before = state(settings, device)
    if not before.faults and not before.opened:
        return
    with _changing(settings, device) as found:
        if found.opened:
            log.warning("%s works again", device)
        vars(found).update(asdict(State()))


def failed(settings: MediaSettings, device: str, reason: str, now: float | None = None) -> bool:
    """It crashed, hung or made something wrong. Whether it is open now."""
    now = time.time() if now is None else now
    with _changing(settings, device) as found:
        found.faults = found.faults + 1 if now - found.last_fault < WINDOW_SECONDS else 1
        found.last_fault, found.reason = now, reason
        if found.opened or found.faults >= THRESHOLD:
            found.pause = min(LONGEST_SECONDS, found.pause * 2 if found.opened else FIRST_SECONDS)
            found.opened, found.until, found.trial = now, now + found.pause, 0.0
            log.error("%s is left alone for %.0f s after %d faults: %s", device, found.pause, found.faults, reason)
        return bool(found.opened)


def put_back(settings: MediaSettings, device: str) -> None:
    """A trial came to no end that tells anything of the device: another chunk may try."""
    if state(settings, device).trial:
        with _changing(settings, device) as found:
            found.trial = 0.0


@contextmanager
def _changing(settings: MediaSettings, device: str) -> Iterator[State]:
    path = _path(settings, device)
    with shared.locked(path.with_suffix(".breaker-lock")):
        found = state(settings, device)
        yield found
        shared.replace(path, json.dumps(asdict(found)))


def _path(settings: MediaSettings, device: str) -> Path:
    return shared.folder(settings) / f"{shared.file_name(device)}.breaker"
