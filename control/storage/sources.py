"""What a recording may be named by: a plain path inside the allowed folders, or `store:KEY`, an object of the store.

By the second, a media node needs no disk in common with the media server: it reads through a link that expires.
"""

from __future__ import annotations

from typing import Final

from control.errors import (
    ObjectKeyInvalid,
    RecordingEmpty,
    RecordingMissing,
    RecordingOutsideRoots,
    RecordingRefused,
    RecordingTooLarge,
)
from control.recordings import resolve_recording
from control.settings import MediaSettings
from control.storage.base import ObjectStore
from control.storage.keys import check_key

STORE_SCHEME: Final = "store:"


def accept_source(source: str, settings: MediaSettings) -> str:
    """The recording's real path, or `store:KEY`, as workers are given it. Whether it exists is not asked.

    Raises RecordingRefused and RecordingOutsideRoots: the store holds replays too, and only what lies under
    `recording_prefixes` is a recording.
    """
    if not source.startswith(STORE_SCHEME):
        return str(resolve_recording(source, settings.recording_roots))
    try:
        key = check_key(source.removeprefix(STORE_SCHEME))
    except ObjectKeyInvalid as error:
        raise RecordingRefused(source=source[:200], reason=str(error.facts["reason"])) from None
    if not any(key.startswith(prefix) for prefix in settings.recording_prefixes):
        raise RecordingOutsideRoots(source=source)
    return source


def check_stored(source: str, store: ObjectStore, settings: MediaSettings) -> None:
    """Raise RecordingMissing, RecordingEmpty or RecordingTooLarge for a `store:KEY` that cannot be used."""
    size = store.size(source.removeprefix(STORE_SCHEME))
    if size is None:
        raise RecordingMissing(source=source)
    if size == 0:
        raise RecordingEmpty(source=source)
    if size > settings.max_bytes:
        raise RecordingTooLarge(source=source, reason=f"{size} bytes, the limit is {settings.max_bytes}")
