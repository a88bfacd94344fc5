"""Which keys an object may have. The same for every store, so that a replay can move from one to another."""

from __future__ import annotations

from typing import Final

from control.errors import ObjectKeyInvalid

RESERVED: Final = ".incoming"
"""First folder no key may have: a local store keeps its unfinished files there."""

_LONGEST_BYTES: Final = 900  # S3 allows 1024 bytes, the bucket's own prefix included
_LONGEST_NAME_BYTES: Final = 255  # of a file name on Linux and macOS


def check_key(key: str) -> str:
    """`key`, where it is a relative POSIX path a store can hold. Raises ObjectKeyInvalid."""
    if not key or key.endswith("/"):
        raise ObjectKeyInvalid(key=key, reason="it names no object")
    return _check(key)


def check_prefix(prefix: str) -> str:
    """`prefix`, where it could be the start of a key; empty is every key. Raises ObjectKeyInvalid."""
    if prefix:
        _check(prefix.removesuffix("/") or "/")
    return prefix


def check_folder(prefix: str) -> str:
    """`prefix`, where it is a folder of keys, ending in `/`. Raises ObjectKeyInvalid."""
    if not prefix.endswith("/"):
        raise ObjectKeyInvalid(key=prefix, reason="a prefix to delete ends in '/'")
    _check(prefix.removesuffix("/") or "/")
    return prefix


def _check(path: str) -> str:
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise ObjectKeyInvalid(key=path, reason="it is not valid Unicode") from error
    names = path.split("/")
    if len(encoded) > _LONGEST_BYTES:
        reason = f"it is longer than {_LONGEST_BYTES} bytes"
    elif path.startswith("/"):
        reason = "it is absolute"
    elif "\\" in path:
        reason = "it holds a backslash"
    elif any(ord(character) < 32 or ord(character) == 127 for character in path):
        reason = "it holds a control character"
    elif any(name in ("", ".", "..") for name in names):
        reason = "an empty, '.' or '..' part could lead elsewhere"
    elif names[0] == RESERVED:
        reason = f"{RESERVED} is reserved"
    elif any(len(name.encode()) > _LONGEST_NAME_BYTES for name in names):
        reason = f"a part is longer than {_LONGEST_NAME_BYTES} bytes"
    else:
        return path
    raise ObjectKeyInvalid(key=path, reason=reason)
