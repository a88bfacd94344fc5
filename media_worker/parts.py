"""A finished part in the store: its files, and then its manifest. The manifest is what makes it count.

A part whose manifest is there, with the init segments and every file at the size it names, is not made again, whoever
asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from control.bus.messages import AudioResult, ChunkResult, Message, ThumbnailResult, Track
from control.bus.work import Work
from control.errors import ObjectMissing
from control.storage import ObjectStore
from media_worker.segments import INIT

Result = TypeVar("Result", bound=Message)


def manifest_key(prefix: str, part: str) -> str:
    return f"{prefix}.work/{part}.json"


def find_part(store: ObjectStore, prefix: str, part: str, kind: type[Result]) -> Result | None:
    """The result of a part that is already in the store, whole; None where it must be made."""
    try:
        result = kind.model_validate_json(store.get_bytes(manifest_key(prefix, part)))
    except (ObjectMissing, ValidationError):
        return None  # ValidationError: another version of this program wrote it
    if any(_missing(store, prefix + name, size) for name, size in _files(result)):
        return None
    if any(_init_differs(store, f"{prefix}{track.name}/{INIT}", track.init_sha256) for track in _tracks(result)):
        return None
    return result.model_copy(update={"reused": True})


def store_part(store: ObjectStore, prefix: str, part: str, folder: Path, result: Message, work: Work) -> None:
    """Put every file under `folder` into the store, then the manifest."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        work.check()
        store.put_file(prefix + path.relative_to(folder).as_posix(), path)
    work.check()
    store.put_bytes(manifest_key(prefix, part), result.model_dump_json().encode())


def _missing(store: ObjectStore, key: str, size: int | None) -> bool:
    found = store.size(key)
    return found is None or (size is not None and found != size)


def _init_differs(store: ObjectStore, key: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(store.get_bytes(key)).hexdigest() != sha256
    except ObjectMissing:
        return True


def _tracks(result: Message) -> tuple[Track, ...]:
    if isinstance(result, ChunkResult):
        return result.tracks
    return (result.track,) if isinstance(result, AudioResult) else ()


def _files(result: Message) -> Iterator[tuple[str, int | None]]:
    """Name (below the replay's prefix) and size, where known, of each file of a result but the init segments."""
    if isinstance(result, ThumbnailResult):
        for name in (result.poster.name, result.storyboard, *result.sheets, *(c.name for c in result.candidates)):
            yield name, None
    for track in _tracks(result):
        for segment in track.segments:
            yield f"{track.name}/{segment.name}", segment.size_bytes
