"""Boxes and their fields (ISO/IEC 14496-12 section 4.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

Bytes = bytes | bytearray | memoryview

_PRINTABLE = frozenset(range(0x20, 0x7F)) | {0xA9}


class BoxError(ValueError):
    """The bytes are not well-formed ISO base media."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box: where it starts, its size with its header, and the header's size. All in bytes."""

    type: str
    offset: int
    size: int
    header_size: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def content(self) -> int:
        """Offset of its first byte after the header."""
        return self.offset + self.header_size


def iter_boxes(data: Bytes, start: int = 0, end: int | None = None, *, truncated: bool = False) -> Iterator[Box]:
    """The boxes that lie side by side in `data[start:end]`.

    With `truncated` the last box may claim more bytes than there are (a byte range of a segment): it is cut to them.
    Raises BoxError on a header that is no header and on a box that runs past `end`.
    """
    limit = len(data) if end is None else end
    at = start
    while at < limit:
        if limit - at < 8:
            if truncated:
                return
            raise BoxError(f"{limit - at} stray bytes at {at}: too few for a box header")
        size, kind = struct.unpack_from(">I4s", data, at)
        if not _PRINTABLE.issuperset(kind):
            raise BoxError(f"no box at {at}: its type would be {kind!r}")
        name, header = kind.decode("latin-1"), 8
        if size == 1:
            header = 16
            size = number(data, at + 8, 8, limit)
        elif size == 0:
            size = limit - at
        if name == "uuid":
            header += 16
        if size < header:
            raise BoxError(f"box {name!r} at {at} claims {size} bytes, less than its own header")
        if at + size > limit:
            if not truncated:
                raise BoxError(f"box {name!r} at {at} claims {size} bytes, but only {limit - at} are there")
            size = limit - at
        yield Box(name, at, size, header)
        at += size


def children(data: Bytes, box: Box, skip: int = 0) -> Iterator[Box]:
    """The boxes inside `box`, after `skip` bytes of its own fields."""
    return iter_boxes(data, box.content + skip, box.end)


def find(data: Bytes, box: Box, *path: str) -> Box | None:
    """The first box down `path` inside `box`."""
    for name in path:
        inner = next((child for child in children(data, box) if child.type == name), None)
        if inner is None:
            return None
        box = inner
    return box


def need(data: Bytes, box: Box, *path: str) -> Box:
    found = find(data, box, *path)
    if found is None:
        raise BoxError(f"box {box.type!r} at {box.offset} holds no {'/'.join(path)}")
    return found


def number(data: Bytes, at: int, size: int, limit: int) -> int:
    if at + size > limit:
        raise BoxError(f"a field of {size} bytes at {at} runs past its box's end, {limit}")
    return int.from_bytes(data[at : at + size], "big")


class Fields:
    """Reads a box's fields one after the other, big-endian."""

    def __init__(self, data: Bytes, box: Box) -> None:
        self._data, self._box = data, box
        self.at = box.content

    def u(self, size: int) -> int:
        value = number(self._data, self.at, size, self._box.end)
        self.at += size
        return value

    def signed(self, size: int) -> int:
        value = self.u(size)
        return value - (1 << 8 * size) if value >> (8 * size - 1) else value

    def full(self) -> tuple[int, int]:
        """Version and flags of a full box."""
        return self.u(1), self.u(3)
