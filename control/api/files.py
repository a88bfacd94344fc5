"""A replay's files over HTTP: content types, ranges, revalidation, cache lifetimes. Whatever the store is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from control.api.problems import RangeUnsatisfiable, problem_response
from control.errors import ObjectMissing
from control.storage import ObjectStore, content_type

SERVABLE: Final = frozenset({".m3u8", ".mp4", ".m4s", ".jpg", ".vtt"})
"""What may be served, by ending. Anything else in the store is no viewer's business: `replay.json` tells where the
recording lies."""

_FOR_EVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_A_WHILE = "private, max-age=300"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BLOCK_BYTES = 256 * 1024
_PROXIED = (".m3u8", ".vtt")
"""Small texts, always from here: the addresses in them are relative to the playback link."""


def serve(
    store: ObjectStore, prefix: str, path: str, request: Request, *, finished: bool, link_seconds: int
) -> Response:
    """The file `path` of the replay under `prefix`.

    `finished` says whether the replay will change no more; a redirect to the store works at most `link_seconds`.
    Raises ObjectMissing for anything that is not a finished file of the replay.
    """
    ending = servable(path)
    key = f"{prefix.rstrip('/')}/{path}"
    size = store.size(key)
    if size is None:
        raise ObjectMissing(key=path)
    headers = {"Cache-Control": _lifetime(ending, finished=finished)}
    if ending in _PROXIED:
        content = store.get_bytes(key)
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if _unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=content_type(key), headers=headers)
    if elsewhere := store.read_url(key, max(1, min(3600, link_seconds))):
        return RedirectResponse(elsewhere, status_code=307, headers={"Cache-Control": "no-store"})
    local = store.local_path(key)
    if local is not None:
        found = local.stat()
        headers["ETag"] = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        if _unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
    return _content(store, key, size, content_type(key), request, headers)


def servable(path: str) -> str:
    """The path's ending. Raises ObjectMissing where no viewer may have it: unknown kinds of files, work in progress
    (a part that starts with '.'), and every way out of the replay's folder."""
    parts = path.split("/")
    clean = all(part and not part.startswith(".") for part in parts)
    if not clean or any(character in "\\:" or not character.isprintable() for character in path):
        raise ObjectMissing(key=path)
    ending = PurePosixPath(path).suffix
    if ending not in SERVABLE:
        raise ObjectMissing(key=path)
    return ending


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of a single byte range (RFC 9110, section 14); None where the whole file is to be sent: no
    header, another unit, several ranges, or one that does not parse. Raises RangeUnsatisfiable."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = min(int(match[2]), size)
        if length == 0:
            raise RangeUnsatisfiable(size=size)
        return size - length, length
    start = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < start:
        return None
    if start >= size:
        raise RangeUnsatisfiable(size=size)
    return start, last - start + 1


def _content(
    store: ObjectStore, key: str, size: int, media_type: str, request: Request, headers: dict[str, str]
) -> Response:
    headers["Accept-Ranges"] = "bytes"
    condition = request.headers.get("if-range")
    asked = request.headers.get("range") if condition in (None, headers.get("ETag")) else None
    try:
        wanted = wanted_range(asked, size)
    except RangeUnsatisfiable as error:
        return problem_response(request, error, headers={"Content-Range": f"bytes */{size}"})
    start, length = wanted or (0, size)
    headers["Content-Length"] = str(length)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, media_type=media_type, headers=headers)
    blocks = _blocks(store, key, start, length)
    return StreamingResponse(blocks, status_code=status, media_type=media_type, headers=headers)


def _blocks(store: ObjectStore, key: str, start: int, length: int) -> Iterator[bytes]:
    with store.open(key, start, length) as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _unchanged(request: Request, etag: str) -> bool:
    offered = request.headers.get("if-none-match", "")
    return offered.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in offered.split(","))


def _lifetime(ending: str, *, finished: bool) -> str:
    if ending in (".m4s", ".mp4"):
        return _FOR_EVER
    return _A_WHILE if finished else _ASK_AGAIN
