"""The object store's interface: keys are relative POSIX paths, objects appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class ObjectStore(Protocol):
    """A place for finished files. Every method raises StorageUnavailable where trying again may help."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a copy of a local file under `key`, replacing what is there. Content type and cache lifetime follow
        from the key's ending."""

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, replacing what is there."""

    def get_bytes(self, key: str) -> bytes:
        """The object's content. Raises ObjectMissing."""

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream of the object's bytes from `start`, at most `length`. Raises ObjectMissing."""

    def size(self, key: str) -> int | None:
        """Size in bytes, None where there is no such object."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with `prefix`, ascending."""

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens where it is missing."""

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key starts with `prefix` (which must end in '/'); how many there were."""

    def read_url(self, key: str, seconds: int) -> str | None:
        """A link that reads the object for `seconds`, where the store can give one (S3); None for a local folder."""

    def local_path(self, key: str) -> Path | None:
        """The object as a local file, where the store is a folder; None for S3."""
