"""A stretch of a binary stream as a stream of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Source(Protocol):
    """What a window reads from."""

    def read(self, amount: int, /) -> bytes: ...

    def close(self) -> None: ...


class Window(io.RawIOBase):
    """At most `length` bytes of `source` from where it stands; closing it closes `source`.

    `translate` turns an exception of `source` into the one to raise.
    """

    def __init__(
        self, source: Source, length: int | None, translate: Callable[[Exception], Exception | None] | None = None
    ) -> None:
        self._source = source
        self._left = length
        self._translate = translate

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = len(view) if self._left is None else min(len(view), self._left)
        data = self._read(wanted) if wanted else b""
        view[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _read(self, amount: int) -> bytes:
        try:
            return self._source.read(amount)
        except Exception as error:
            translated = self._translate(error) if self._translate else None
            if translated is None:
                raise
            raise translated from error


def window(
    source: Source, length: int | None = None, translate: Callable[[Exception], Exception | None] | None = None
) -> BinaryIO:
    """A buffered binary stream over a Window."""
    return cast(BinaryIO, io.BufferedReader(Window(source, length, translate), buffer_size=256 * 1024))
