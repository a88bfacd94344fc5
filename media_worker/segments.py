"""An encoder's fragmented MP4 → an init segment and numbered media segments, each checked before it counts."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from control.bus.messages import ChunkJob, IFrame, Rung, Segment, Track
from control.errors import KeyframesMisplaced, OutputRejected
from media_worker.boxes import BoxError, Fragment, InitInfo, Sample, nal_types, parse_fragments, parse_init
from media_worker.boxes.obu import starts_with_key_frame

INIT: Final = "init.mp4"
_H264_IDR: Final = frozenset({5})  # ITU-T H.264, table 7-1
_HEVC_IDR: Final = frozenset({19, 20})  # ITU-T H.265, table 7-1: with and without leading pictures that can be decoded


def segment_name(number: int) -> str:
    return f"seg-{number:05d}.m4s"


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The file's bytes without reading them all into memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = memoryview(mapping)
        try:
            yield view
        finally:
            view.release()


def split_video(path: Path, rung: Rung, job: ChunkJob, folder: Path) -> Track:
    """Cut `path` into `folder/init.mp4` and `folder/seg-NNNNN.m4s`.

    Raises OutputRejected where the encoder did not make exactly the chunk's frames, at their times, with an IDR on
    the grid and nowhere else.
    """
    try:
        with mapped(path) as data:
            init = parse_init(data)
            fragments = parse_fragments(data, init)
            _check(data, init, fragments, rung, job)
            folder.mkdir(parents=True, exist_ok=True)
            head = bytes(data[: init.size])
            (folder / INIT).write_bytes(head)
            segments = tuple(_write_segments(data, fragments, job, folder))
    except (BoxError, ValueError, OSError) as error:
        raise _rejected(rung, job, str(error)) from error
    return Track(
        name=rung.name,
        codecs=init.codecs,
        timescale=init.timescale,
        init_sha256=hashlib.sha256(head).hexdigest(),
        frames=sum(len(fragment.samples) for fragment in fragments),
        segments=segments,
    )


def _write_segments(data: memoryview, fragments: Sequence[Fragment], job: ChunkJob, folder: Path) -> Iterator[Segment]:
    gops = job.segment_frames // job.gop_frames
    for number, first in enumerate(range(0, len(fragments), gops), job.chunk.first_segment):
        group = fragments[first : first + gops]
        start, end = group[0].offset, group[-1].offset + group[-1].size
        (folder / segment_name(number)).write_bytes(data[start:end])
        yield Segment(
            name=segment_name(number),
            size_bytes=end - start,
            ticks=sum(fragment.duration for fragment in group),
            iframes=tuple(
                IFrame(
                    offset=fragment.offset - start,
                    # From the `moof` to the end of the first sample: the IDR alone.
                    size_bytes=fragment.samples[0].offset + fragment.samples[0].size - fragment.offset,
                    ticks=fragment.duration,
                )
                for fragment in group
            ),
        )


def _check(data: memoryview, init: InitInfo, fragments: Sequence[Fragment], rung: Rung, job: ChunkJob) -> None:
    step, chunk = rung.frame_step, job.chunk
    if (init.timescale, init.width, init.height) != (rung.timescale, rung.width, rung.height):
        found = f"{init.width} × {init.height} at {init.timescale} ticks a second"
        raise _rejected(rung, job, f"its init segment says {found}")
    frames = sum(len(fragment.samples) for fragment in fragments)
    wanted = -(-chunk.frames // step)
    if frames != wanted:
        raise _rejected(rung, job, f"{frames} frames instead of {wanted}")
    ticks = rung.timescale / rung.frame_rate
    gop = job.gop_frames // step
    for number, fragment in enumerate(fragments):
        place = f"GOP {number}"
        time = (chunk.first_frame // step + number * gop) * ticks
        if fragment.base_decode_time != time:
            raise _rejected(rung, job, f"{place} starts at {fragment.base_decode_time} ticks instead of {time}")
        if len(fragment.samples) != min(gop, wanted - number * gop):
            raise _misplaced(rung, job, f"{place} has {len(fragment.samples)} frames instead of {gop}")
        if any(sample.duration != ticks for sample in fragment.samples):
            raise _rejected(rung, job, f"{place} has a frame that does not last {ticks} ticks")
        shown = sorted(n * int(ticks) + sample.composition_offset for n, sample in enumerate(fragment.samples))
        if shown != [n * int(ticks) for n in range(len(shown))]:
            raise _rejected(rung, job, f"{place} shows two frames at a time, or none")
        first, *others = fragment.samples
        if not first.sync or any(sample.sync for sample in others) or first.composition_offset != 0:
            raise _misplaced(rung, job, f"{place} has a keyframe off the grid")
        if not _starts_anew(data, init, first):
            raise _misplaced(rung, job, f"{place} does not start with an IDR")


def _starts_anew(data: memoryview, init: InitInfo, sample: Sample) -> bool:
    """Whether nothing before the sample is needed to decode it and what follows."""
    if init.entry.format == "av01":
        return starts_with_key_frame(data[sample.offset : sample.offset + sample.size])
    hevc = init.entry.format in ("hvc1", "hev1")
    found = nal_types(data, sample, init.nal_length_size, hevc=hevc)
    return not (_HEVC_IDR if hevc else _H264_IDR).isdisjoint(found)


def _misplaced(rung: Rung, job: ChunkJob, reason: str) -> KeyframesMisplaced:
    return KeyframesMisplaced(key=f"{job.replay_id}/{job.part} {rung.name}", reason=reason)


def _rejected(rung: Rung, job: ChunkJob, reason: str) -> OutputRejected:
    return OutputRejected(key=f"{job.replay_id}/{job.part} {rung.name}", reason=reason)
