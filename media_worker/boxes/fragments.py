"""Fragments (`moof` + `mdat`) and their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from media_worker.boxes.init import InitInfo
from media_worker.boxes.structure import Box, BoxError, Bytes, Fields, children, iter_boxes, need, number

_NON_SYNC = 0x0001_0000  # sample_is_non_sync_sample, 14496-12 section 8.8.3.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One coded frame. Times in the track's timescale; `offset` is absolute in the data that was parsed."""

    duration: int
    size: int
    sync: bool
    composition_offset: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """One track's part of a `moof`, and the bytes from that `moof` to the end of its `mdat`."""

    offset: int
    size: int
    track_id: int
    base_decode_time: int
    samples: tuple[Sample, ...]

    @property
    def duration(self) -> int:
        """Sum of the sample durations, in the track's timescale."""
        return sum(sample.duration for sample in self.samples)


def parse_fragments(data: Bytes, init: InitInfo, *, truncated: bool = False) -> tuple[Fragment, ...]:
    """The fragments of `init`'s track in `data`, in file order; other tracks and other boxes are passed over.

    With `truncated` the last `mdat` may be cut (a byte range of a segment); its samples are listed all the same.
    Raises BoxError on malformed boxes and on samples that lie outside the data.
    """
    boxes = list(iter_boxes(data, truncated=truncated))
    found: list[Fragment] = []
    for index, moof in enumerate(boxes):
        if moof.type != "moof":
            continue
        end = moof.end
        for box in boxes[index + 1 :]:
            if box.type == "moof":
                break
            if box.type == "mdat":
                end = box.end
                break
        for track_id, decode_time, samples in _track_fragments(data, moof, init):
            last = samples[-1] if samples else None
            if last and not truncated and last.offset + last.size > len(data):
                raise BoxError(f"the samples of the moof at {moof.offset} run past the data's end, {len(data)}")
            found.append(Fragment(moof.offset, end - moof.offset, track_id, decode_time, samples))
    return tuple(found)


def _track_fragments(data: Bytes, moof: Box, init: InitInfo) -> Iterator[tuple[int, int, tuple[Sample, ...]]]:
    follows = moof.offset  # where data of the next traf is, when nothing says so: 14496-12 section 8.8.7.1
    for traf in children(data, moof):
        if traf.type != "traf":
            continue
        header = Fields(data, need(data, traf, "tfhd"))
        _, flags = header.full()
        track_id = header.u(4)
        base = header.u(8) if flags & 0x01 else (moof.offset if flags & 0x02_0000 else follows)
        header.at += 4 if flags & 0x02 else 0
        duration = header.u(4) if flags & 0x08 else init.default_sample_duration
        size = header.u(4) if flags & 0x10 else init.default_sample_size
        sample_flags = header.u(4) if flags & 0x20 else init.default_sample_flags
        decode_time: int | None = None
        samples: list[Sample] = []
        follows = base
        for box in children(data, traf):
            if box.type == "tfdt":
                fields = Fields(data, box)
                version, _ = fields.full()
                decode_time = fields.u(8 if version else 4)
            elif box.type == "trun":
                run, follows = _run(data, box, base, follows, (duration, size, sample_flags))
                samples += run
        if track_id != init.track_id:
            continue
        if decode_time is None:
            raise BoxError(f"the moof at {moof.offset} does not say its decode time (no tfdt)")
        yield track_id, decode_time, tuple(samples)


def _run(data: Bytes, box: Box, base: int, follows: int, defaults: tuple[int, int, int]) -> tuple[list[Sample], int]:
    """The samples of a `trun` and the offset after the last."""
    fields = Fields(data, box)
    version, flags = fields.full()
    count = fields.u(4)
    at = base + fields.signed(4) if flags & 0x01 else follows
    first_flags = fields.u(4) if flags & 0x04 else None
    each = 4 * (flags >> 8 & 0xF).bit_count()
    if fields.at + count * each > box.end or (each == 0 and count > len(data)):
        raise BoxError(f"the trun at {box.offset} claims {count} samples, more than it holds")
    samples: list[Sample] = []
    for index in range(count):
        duration = fields.u(4) if flags & 0x100 else defaults[0]
        size = fields.u(4) if flags & 0x200 else defaults[1]
        sample_flags = fields.u(4) if flags & 0x400 else defaults[2]
        if index == 0 and first_flags is not None:
            sample_flags = first_flags
        shift = 0
        if flags & 0x800:
            shift = fields.signed(4) if version else fields.u(4)
        samples.append(Sample(duration, size, not sample_flags & _NON_SYNC, shift, at))
        at += size
    return samples, at


def nal_types(data: Bytes, sample: Sample, nal_length_size: int, *, hevc: bool = False) -> tuple[int, ...]:
    """Types of the sample's NAL units in order (H.264: 5 is an IDR slice, 1 another; HEVC: 19 and 20 are IDR).

    Raises BoxError where the lengths do not fill the sample exactly, or the sample is not wholly in the data.
    """
    if nal_length_size not in (1, 2, 4):
        raise BoxError(f"a NAL length prefix of {nal_length_size} bytes is none of 1, 2, 4")
    at, end = sample.offset, sample.offset + sample.size
    if at < 0 or end > len(data):
        raise BoxError(f"the sample at {at} ({sample.size} bytes) is not wholly in the data")
    types: list[int] = []
    while at < end:
        length = number(data, at, nal_length_size, end)
        at += nal_length_size
        if length == 0 or at + length > end:
            raise BoxError(f"a NAL unit of {length} bytes at {at} does not fit its sample, which ends at {end}")
        types.append(data[at] >> 1 & 0x3F if hevc else data[at] & 0x1F)
        at += length
    return tuple(types)
