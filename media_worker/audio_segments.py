"""A programme's audio as one fragmented MP4 → init and segments cut where the video's are.

ffmpeg cuts fragments after so-and-so many seconds, which drifts from the video's segments by a packet now and then.
Here the samples are regrouped, each into the segment of the video it sounds with, and the last one is shortened to
the programme's exact length.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from control.bus.messages import Segment, Track
from control.errors import OutputRejected
from media_worker.boxes import BoxError, InitInfo, Sample, parse_fragments, parse_init
from media_worker.segments import INIT, mapped, segment_name

_DEPENDS_ON_NOTHING: Final = 0x0200_0000  # sample_depends_on = 2: every AAC packet is a sync sample


@dataclass(frozen=True)
class _Placed:
    """A sample and its time in the replay, in ticks; priming samples have negative times."""

    sample: Sample
    time: int


def split_audio(path: Path, name: str, duration: Fraction, segment: Fraction, folder: Path) -> Track:
    """Cut `path` into `folder/init.mp4` and `folder/seg-NNNNN.m4s`: `duration` seconds, cut every `segment` seconds.

    Raises OutputRejected where the audio is more than a packet short.
    """
    try:
        with mapped(path) as data:
            init = parse_init(data)
            samples = [sample for fragment in parse_fragments(data, init) for sample in fragment.samples]
            placed = _fit(_place(samples, init), duration * init.timescale, name)
            folder.mkdir(parents=True, exist_ok=True)
            head = bytes(data[: init.size])
            (folder / INIT).write_bytes(head)
            segments = tuple(_write(data, placed, init, segment * init.timescale, folder))
    except (BoxError, ValueError, OSError) as error:
        raise OutputRejected(key=name, reason=str(error)) from error
    return Track(
        name=name,
        codecs=init.codecs,
        timescale=init.timescale,
        init_sha256=hashlib.sha256(head).hexdigest(),
        frames=len(placed),
        segments=segments,
    )


def _place(samples: Sequence[Sample], init: InitInfo) -> Iterator[_Placed]:
    time = -(init.edit_media_time or 0)
    for sample in samples:
        yield _Placed(sample, time)
        time += sample.duration


def _fit(placed: Iterator[_Placed], ticks: Fraction, name: str) -> list[_Placed]:
    kept = [item for item in placed if item.time < ticks]
    if not kept:
        raise OutputRejected(key=name, reason="it is empty")
    last = kept[-1]
    left = round(ticks) - last.time
    if left > 2 * last.sample.duration + 1:
        short = float((left - last.sample.duration) / ticks)
        raise OutputRejected(key=name, reason=f"the audio ends {short:.1%} early")
    # The last packet is cut (or its silence drawn out) to end with the picture.
    return [*kept[:-1], _Placed(replace(last.sample, duration=left), last.time)]


def _write(
    data: memoryview, placed: Sequence[_Placed], init: InitInfo, segment: Fraction, folder: Path
) -> Iterator[Segment]:
    groups: list[list[_Placed]] = [[]]
    for item in placed:
        # A packet belongs to the segment in which most of it sounds.
        number = max(0, (2 * item.time + item.sample.duration) * segment.denominator // (2 * segment.numerator))
        while number >= len(groups):
            groups.append([])
        groups[number].append(item)
    if len(groups) > 1 and not groups[-1]:
        groups.pop()
    priming = init.edit_media_time or 0
    for number, group in enumerate(groups):
        if not group:
            raise OutputRejected(key=folder.name, reason=f"segment {number} has no audio")
        fragment = _fragment(data, group, init, number + 1, group[0].time + priming)
        (folder / segment_name(number)).write_bytes(fragment)
        ticks = sum(item.sample.duration for item in group)
        # Priming samples are decoded, not heard.
        heard = ticks - (priming if number == 0 else 0)
        yield Segment(name=segment_name(number), size_bytes=len(fragment), ticks=heard)


def _fragment(data: memoryview, group: Sequence[_Placed], init: InitInfo, sequence: int, time: int) -> bytes:
    """One `moof` + `mdat` (ISO/IEC 14496-12, 8.8): absolute decode time, a duration and a size for each sample."""
    entries = b"".join(struct.pack(">II", item.sample.duration, item.sample.size) for item in group)
    payload = b"".join(bytes(data[item.sample.offset : item.sample.offset + item.sample.size]) for item in group)

    def moof(data_offset: int) -> bytes:
        tfhd = _full_box(b"tfhd", 0, 0x020020, struct.pack(">II", init.track_id, _DEPENDS_ON_NOTHING))
        tfdt = _full_box(b"tfdt", 1, 0, struct.pack(">Q", time))
        trun = _full_box(b"trun", 0, 0x000301, struct.pack(">Ii", len(group), data_offset) + entries)
        mfhd = _full_box(b"mfhd", 0, 0, struct.pack(">I", sequence))
        return _box(b"moof", mfhd + _box(b"traf", tfhd + tfdt + trun))

    size = len(moof(0))
    return moof(size + 8) + _box(b"mdat", payload)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _full_box(kind: bytes, version: int, flags: int, body: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + body)
