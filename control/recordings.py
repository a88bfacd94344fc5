"""Which files may be read as recordings. The API, the media workers and the command line all ask here.

A recording is named by a plain path. ffmpeg would also take URLs, protocols and playlists that pull in other files;
none of these gets past `resolve_recording`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from control.errors import (
    RecordingEmpty,
    RecordingMissing,
    RecordingOutsideRoots,
    RecordingRefused,
    RecordingTooLarge,
)
from control.settings import MediaSettings

# ffmpeg's protocol syntax (doc/protocols.texi): `name:…` and, for protocols with options, `name,,key,value,,:…`.
# A lone first letter is a protocol too as far as ffmpeg goes, so drive letters are not excepted.
_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*(:|,,)")
_LONGEST = 4096


def resolve_recording(source: str, roots: Sequence[Path]) -> Path:
    """The real path (absolute, no `..`, no symlink left) of a recording inside one of `roots`.

    A relative path is taken from the working folder and from each root; the first that lies inside a root and exists
    is meant, else the first that lies inside. That it must exist is not asked here: see `check_recording_file`.

    Raises RecordingRefused where `source` is not a plain path, RecordingOutsideRoots where it leads elsewhere.
    """
    shown = _shown(source)
    if not source.strip():
        raise RecordingRefused(source=shown, reason="it names no file")
    if len(source) > _LONGEST:
        raise RecordingRefused(source=shown, reason=f"its path is longer than {_LONGEST} characters")
    if any(ord(character) < 32 or ord(character) == 127 for character in source):
        raise RecordingRefused(source=shown, reason="its path holds control characters")
    if _PROTOCOL.match(source):
        raise RecordingRefused(source=shown, reason="it is a URL or an ffmpeg protocol, not a plain path")
    if source.startswith(("-", "~")):
        # `-` would reach ffmpeg as standard input or as an option; `~` is expanded by shells, not by us.
        raise RecordingRefused(source=shown, reason=f"a path may not start with {source[0]!r}")
    folders = [_real(Path(root), shown) for root in roots]
    # An absolute source replaces the folder it is joined to.
    candidates = [_real(folder / source, shown) for folder in (Path.cwd(), *folders)]
    inside = [path for path in candidates if any(path.is_relative_to(folder) for folder in folders)]
    if not inside:
        raise RecordingOutsideRoots(source=shown)
    return next((path for path in inside if os.path.lexists(path)), inside[0])


def check_recording_file(path: Path, settings: MediaSettings) -> int:
    """Size in bytes of a recording that can be opened: a regular file, readable, not empty, within `max_bytes`.

    Raises RecordingMissing, RecordingRefused (a folder, device, pipe or socket), RecordingEmpty, RecordingTooLarge.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise RecordingMissing(source=path) from error
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe or a device may block for ever; so its kind is asked before anything opens it.
        raise RecordingRefused(source=path, reason=f"it is {_kind(found.st_mode)}, not a file")
    if not os.access(path, os.R_OK):
        raise RecordingMissing(source=path)
    if found.st_size == 0:
        raise RecordingEmpty(source=path)
    if found.st_size > settings.max_bytes:
        raise RecordingTooLarge(source=path, reason=f"{found.st_size} bytes, the limit is {settings.max_bytes}")
    return found.st_size


def _real(path: Path, shown: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symlinks, a name too long for the file system
        raise RecordingRefused(source=shown, reason="its path cannot be resolved") from error


def _shown(source: str) -> str:
    """The source as messages show it: one line, not endless."""
    printable = "".join(character if character.isprintable() else "?" for character in source)
    return printable if len(printable) <= 200 else printable[:199] + "…"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
