"""An object store whose traffic is counted: requests, seconds and bytes by what was asked.

Bytes are those that pass through this process. What ffmpeg reads of a recording by a link of its own, and what a viewer
gets from the bucket by a link, the bucket's own metrics count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from prometheus_client import Counter, Histogram

from control.errors import AfterliveError, ObjectMissing
from control.storage.base import ObjectStore
from control.storage.local import LocalStore
from control.storage.window import window

BYTES: Final = Counter(
    "afterlive_store_bytes_total",
    "Bytes this process wrote to (put) and read from (get) the object store",
    ["operation"],
)
SECONDS: Final = Histogram(
    "afterlive_store_seconds",
    "Requests to the object store until they were answered; of a get, until its first byte could be read",
    ["operation", "result"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60),
)


class Metered:
    """As `inner`, counted."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    def put_file(self, key: str, path: Path) -> None:
        size = path.stat().st_size
        with _asked("put"):
            self.inner.put_file(key, path)
        BYTES.labels("put").inc(size)

    def put_bytes(self, key: str, data: bytes) -> None:
        with _asked("put"):
            self.inner.put_bytes(key, data)
        BYTES.labels("put").inc(len(data))

    def get_bytes(self, key: str) -> bytes:
        with _asked("get"):
            data = self.inner.get_bytes(key)
        BYTES.labels("get").inc(len(data))
        return data

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        with _asked("get"):
            stream = self.inner.open(key, start, length)
        return window(_Counted(stream))

    def size(self, key: str) -> int | None:
        with _asked("head"):
            return self.inner.size(key)

    def list(self, prefix: str) -> Iterator[str]:
        # Pages are asked for while the caller reads on, so its seconds would be the caller's.
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        with _asked("delete"):
            self.inner.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        with _asked("delete"):
            return self.inner.delete_prefix(prefix)

    def read_url(self, key: str, seconds: int) -> str | None:
        return self.inner.read_url(key, seconds)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)


class _Counted:
    """What is read of `stream`, as it is read: a viewer may go away before the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, amount: int, /) -> bytes:
        data = self._stream.read(amount)
        BYTES.labels("get").inc(len(data))
        return data

    def close(self) -> None:
        self._stream.close()


@contextmanager
def _asked(operation: str) -> Iterator[None]:
    started = time.perf_counter()
    result = "error"
    try:
        yield
        result = "done"
    except ObjectMissing:
        result = "missing"
        raise
    except AfterliveError as error:
        result = error.code
        raise
    finally:
        SECONDS.labels(operation, result).observe(time.perf_counter() - started)


def folder_of(store: ObjectStore) -> Path | None:
    """The folder of a local store; None for another."""
    found = store.inner if isinstance(store, Metered) else store
    return found.root if isinstance(found, LocalStore) else None
