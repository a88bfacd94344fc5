"""An encoder's output cut into segments, and everything that may be wrong with it, on bytes built by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest

from control.bus.messages import Chunk, ChunkJob, Rung, Track
from control.errors import OutputRejected
from media_worker.boxes import parse_fragments, parse_init
from media_worker.segments import mapped, segment_name, split_video
from tests.unit.facts import video
from tests.unit.test_boxes import AVCC, FTYP, NON_SYNC, SYNC, box, full, moov, trak, u32, visual

TICKS = 1000
RUNG = Rung(
    name="720p", width=1280, height=720, frame_rate=Fraction(30), video_kbps=3000, max_kbps=4500, buffer_kbits=6000,
    timescale=30000,
)  # fmt: skip
HALF = RUNG.model_copy(update={"frame_step": 2, "frame_rate": Fraction(15), "timescale": 15000})


def job(first_frame: int = 0, frames: int = 14, first_segment: int = 0) -> ChunkJob:
    """GOPs of 4 frames, segments of 8."""
    chunk = Chunk(index=0, first_frame=first_frame, frames=frames, first_segment=first_segment, entry_pts=None)
    return ChunkJob(
        replay_id="r", part="chunk-00000", source="a", prefix="p/", video=video(), chunk=chunk, rungs=(RUNG,),
        frame_rate=Fraction(30), gop_frames=4, segment_frames=8, preset="veryfast", threads=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    nal: int = 1
    sync: bool = False
    duration: int = TICKS
    offset: int = 0
    size: int = 20


def gop(frames: int = 4) -> list[Frame]:
    return [Frame(nal=5, sync=True, size=100), *[Frame() for _ in range(frames - 1)]]


def init(width: int = 1280, height: int = 720, timescale: int = 30000) -> bytes:
    entry = visual("avc1", AVCC, width, height)
    return FTYP + moov(trak(1, "vide", timescale, entry), trex=full("trex", 0, 0, u32(1, 1, 0, 0, 0)))


def fragment(time: int, frames: list[Frame]) -> bytes:
    entries = b"".join(
        u32(frame.duration, frame.size, SYNC if frame.sync else NON_SYNC) + frame.offset.to_bytes(4, "big", signed=True)
        for frame in frames
    )

    def moof(data_offset: int) -> bytes:
        run = full("trun", 1, 0xF01, u32(len(frames), data_offset), entries)
        tfhd, tfdt = full("tfhd", 0, 0x020000, u32(1)), full("tfdt", 1, 0, time.to_bytes(8, "big"))
        return box("moof", full("mfhd", 0, 0, u32(1)), box("traf", tfhd, tfdt, run))

    samples = b"".join(u32(frame.size - 4) + bytes([frame.nal]) + bytes(frame.size - 5) for frame in frames)
    return moof(len(moof(0)) + 8) + box("mdat", samples)


def chunk(*gops: list[Frame], first: int = 0, head: bytes | None = None) -> bytes:
    time, data = first * TICKS, head or init()
    for each in gops:
        data += fragment(time, each)
        time += len(each) * TICKS
    return data


WHOLE = (gop(), gop(), gop(), gop(2))


@pytest.fixture
def split(tmp_path: Path) -> Callable[..., Track]:
    def cut(data: bytes, rung: Rung = RUNG, what: ChunkJob | None = None) -> Track:
        path = tmp_path / "encoded.mp4"
        path.write_bytes(data)
        return split_video(path, rung, what or job(), tmp_path / "out")

    return cut


def test_segments_are_the_encoder_s_own_bytes(split: Callable[..., Track], tmp_path: Path) -> None:
    data = chunk(*WHOLE)
    track = split(data)
    head = init()
    assert (tmp_path / "out" / "init.mp4").read_bytes() == head
    first, second = ((tmp_path / "out" / segment_name(number)).read_bytes() for number in (0, 1))
    assert head + first + second == data
    assert (track.name, track.codecs, track.timescale, track.frames) == ("720p", "avc1.640028", 30000, 14)
    assert track.init_sha256 == hashlib.sha256(head).hexdigest()
    assert [(each.name, each.size_bytes, each.ticks) for each in track.segments] == [
        ("seg-00000.m4s", len(first), 8000),
        ("seg-00001.m4s", len(second), 6000),
    ]


def test_iframes_are_the_keyframes_alone(split: Callable[..., Track], tmp_path: Path) -> None:
    track = split(chunk(*WHOLE))
    for segment, ticks in zip(track.segments, ([4000, 4000], [4000, 2000]), strict=True):
        data = (tmp_path / "out" / segment.name).read_bytes()
        assert [iframe.ticks for iframe in segment.iframes] == ticks
        for iframe in segment.iframes:
            part = data[iframe.offset : iframe.offset + iframe.size_bytes]
            (found,) = parse_fragments(part, parse_init(init()), truncated=True)
            keyframe = found.samples[0]
            assert keyframe.sync
            assert keyframe.offset + keyframe.size == len(part)


def test_a_later_chunk_has_later_times_and_names(split: Callable[..., Track]) -> None:
    track = split(chunk(*WHOLE, first=16), what=job(first_frame=16, first_segment=2))
    assert [segment.name for segment in track.segments] == ["seg-00002.m4s", "seg-00003.m4s"]


def test_a_rung_of_every_second_frame(split: Callable[..., Track]) -> None:
    """Of frames 16 to 29 it has seven, in GOPs of two."""
    data = init(timescale=15000)
    for number, frames in enumerate((2, 2, 2, 1)):
        data += fragment((8 + 2 * number) * TICKS, gop(frames))
    track = split(data, HALF, job(first_frame=16, first_segment=2))
    assert track.frames == 7
    assert [segment.ticks for segment in track.segments] == [4000, 3000]


def reordered() -> list[Frame]:
    """I B B P as x264 writes it: shown 0, 2, 3, 1 of four."""
    key, *rest = gop()
    return [key, *(replace(frame, offset=offset) for frame, offset in zip(rest, (2000, -1000, -1000), strict=True))]


def test_frames_may_be_coded_in_another_order(split: Callable[..., Track]) -> None:
    assert split(chunk(reordered(), *WHOLE[1:])).frames == 14


def changed(place: int, **changes: object) -> list[Frame]:
    frames = gop()
    frames[place] = replace(frames[place], **changes)  # type: ignore[arg-type]
    return frames


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (chunk(*WHOLE[:3], gop(1)), "13 frames instead of 14"),
        (chunk(*WHOLE, gop()), "18 frames instead of 14"),
        (chunk(*WHOLE, first=1), "GOP 0 starts at 1000 ticks instead of 0"),
        (
            init() + fragment(0, gop()) + fragment(5000, gop()) + fragment(9000, gop()) + fragment(13000, gop(2)),
            "GOP 1",
        ),
        (chunk(gop(), gop(3), gop(), gop(3)), "GOP 1 has 3 frames instead of 4"),
        (chunk(changed(2, duration=999), *WHOLE[1:]), "does not last 1000 ticks"),
        (chunk(changed(0, sync=False), *WHOLE[1:]), "GOP 0 has a keyframe off the grid"),
        (chunk(changed(2, sync=True), *WHOLE[1:]), "GOP 0 has a keyframe off the grid"),
        (chunk(*WHOLE[:1], changed(0, nal=1), *WHOLE[2:]), "GOP 1 does not start with an IDR"),
        (chunk(changed(1, offset=1000), *WHOLE[1:]), "GOP 0 shows two frames at a time"),
        (chunk(changed(3, offset=1000), *WHOLE[1:]), "GOP 0 shows two frames at a time"),
        (chunk(*WHOLE, head=init(640, 360)), "640 × 360 at 30000 ticks a second"),
        (chunk(*WHOLE, head=init(timescale=15360)), "1280 × 720 at 15360 ticks a second"),
        (chunk(*WHOLE)[:-1], "claims 128 bytes, but only 127 are there"),
        (init(), "0 frames instead of 14"),
        (b"", ""),
        (b"not a movie at all", ""),
    ],
)
def test_what_is_not_exactly_the_chunk_is_rejected(
    data: bytes, reason: str, split: Callable[..., Track], tmp_path: Path
) -> None:
    with pytest.raises(OutputRejected) as error:
        split(data)
    assert error.value.detail.startswith("The output of r/chunk-00000 720p failed its check: ")
    assert reason in error.value.detail
    assert error.value.retryable
    assert not (tmp_path / "out").exists()


def test_a_keyframe_that_is_shown_late_is_rejected(split: Callable[..., Track]) -> None:
    """All frames are there, but the first one coded is not the first one shown."""
    frames = [replace(frame, offset=offset) for frame, offset in zip(gop(), (1000, -1000, 0, 0), strict=True)]
    with pytest.raises(OutputRejected, match="keyframe off the grid"):
        split(chunk(frames, *WHOLE[1:]))


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(OutputRejected):
        split_video(tmp_path / "none.mp4", RUNG, job(), tmp_path / "out")


def test_a_mapping_ends_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with mapped(path) as data:
        assert bytes(data) == b"abc"
    with pytest.raises(ValueError, match="released"):
        data[0]
