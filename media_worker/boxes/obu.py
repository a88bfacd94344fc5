"""Open bitstream units of AV1, as far as it takes to know a key frame (AV1 Bitstream & Decoding Process Specification,
sections 5.3, 5.9.2, 6.2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from media_worker.boxes.structure import BoxError, Bytes

_FRAME_HEADER: Final = 3
_FRAME: Final = 6
_KEY_FRAME: Final = 0


def starts_with_key_frame(sample: Bytes) -> bool:
    """Whether the first frame of a sample is a key frame that is shown. Raises BoxError where the units do not fit."""
    for kind, payload in _units(sample):
        if kind in (_FRAME_HEADER, _FRAME) and len(payload):
            shown_again, frame_type, shown = payload[0] >> 7, payload[0] >> 5 & 3, payload[0] >> 4 & 1
            return not shown_again and frame_type == _KEY_FRAME and bool(shown)
    return False


def _units(sample: Bytes) -> Iterator[tuple[int, Bytes]]:
    """Type and payload of each unit."""
    at = 0
    while at < len(sample):
        head = sample[at]
        at += 2 if head & 4 else 1
        size, at = _leb128(sample, at) if head & 2 else (len(sample) - at, at)
        if at + size > len(sample):
            raise BoxError(f"an AV1 unit of {size} bytes at {at} does not fit its sample of {len(sample)}")
        yield head >> 3 & 15, sample[at : at + size]
        at += size


def _leb128(sample: Bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(8):
        if at >= len(sample):
            raise BoxError("an AV1 unit ends within its length")
        byte = sample[at]
        at += 1
        value |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            break
    return value, at
