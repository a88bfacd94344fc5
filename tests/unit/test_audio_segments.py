"""A programme's sound regrouped to the video's segments, on bytes built by hand."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from control.bus.messages import Track
from control.errors import OutputRejected
from media_worker.audio_segments import split_audio
from media_worker.boxes import Fragment, parse_fragments, parse_init
from tests.unit.test_boxes import ESDS, FTYP, box, full, moov, sound, trak, u32

RATE = 48000
PACKET = 1024
PRIMING = 1024


def payload(number: int) -> bytes:
    """A packet that says its number, of a length of its own."""
    return number.to_bytes(4, "big") * (1 + number % 3)


def programme(packets: int, each: int = 281, priming: int = PRIMING) -> bytes:
    """A fragmented MP4 of so many packets, `each` to a fragment, as ffmpeg writes it."""
    edits = box("edts", full("elst", 0, 0, u32(1, 0, priming, 0x10000))) if priming else b""
    data = FTYP + moov(
        trak(1, "soun", RATE, sound(ESDS), edits), trex=full("trex", 0, 0, u32(1, 1, PACKET, 0, 0x0200_0000))
    )
    for first in range(0, packets, each):
        numbers = range(first, min(first + each, packets))
        entries = b"".join(u32(len(payload(number))) for number in numbers)

        def moof(offset: int, first: int = first, count: int = len(numbers), entries: bytes = entries) -> bytes:
            time = (first * PACKET).to_bytes(8, "big")
            traf = box(
                "traf",
                full("tfhd", 0, 0x020000, u32(1)),
                full("tfdt", 1, 0, time),
                full("trun", 0, 0x201, u32(count, offset), entries),
            )
            return box("moof", full("mfhd", 0, 0, u32(1)), traf)

        data += moof(len(moof(0)) + 8) + box("mdat", *(payload(number) for number in numbers))
    return data


@pytest.fixture
def split(tmp_path: Path) -> Callable[..., Track]:
    def cut(data: bytes, duration: Fraction | int, segment: Fraction | int = 6) -> Track:
        path = tmp_path / "whole.mp4"
        path.write_bytes(data)
        return split_audio(path, "audio", Fraction(duration), Fraction(segment), tmp_path / "audio")

    return cut


def fragments(folder: Path) -> list[Fragment]:
    init = parse_init((folder / "init.mp4").read_bytes())
    found = []
    for path in sorted(folder.glob("*.m4s")):
        (one,) = parse_fragments(path.read_bytes(), init)
        assert one.size == path.stat().st_size
        found.append(one)
    return found


def contents(folder: Path) -> list[bytes]:
    """Every packet's bytes, in order."""
    return [
        path.read_bytes()[sample.offset : sample.offset + sample.size]
        for path, fragment in zip(sorted(folder.glob("*.m4s")), fragments(folder), strict=True)
        for sample in fragment.samples
    ]


def test_packets_sound_in_the_segment_they_belong_to(split: Callable[..., Track], tmp_path: Path) -> None:
    track = split(programme(616), 13)  # 616 packets are 13.14 s, 21 ms of it priming
    folder = tmp_path / "audio"
    assert (track.name, track.codecs, track.timescale) == ("audio", "mp4a.40.2", RATE)
    assert [segment.name for segment in track.segments] == ["seg-00000.m4s", "seg-00001.m4s", "seg-00002.m4s"]
    ends = 0
    for segment, border in zip(track.segments, (6, 12, 13), strict=True):
        ends += segment.ticks
        assert abs(ends - border * RATE) <= PACKET / 2
    assert ends == 13 * RATE
    assert track.frames == sum(len(fragment.samples) for fragment in fragments(folder))
    assert contents(folder) == [payload(number) for number in range(track.frames)]


def test_times_go_on_from_segment_to_segment(split: Callable[..., Track], tmp_path: Path) -> None:
    split(programme(616), 13)
    due = 0
    for fragment in fragments(tmp_path / "audio"):
        assert fragment.base_decode_time == due
        assert all(sample.sync for sample in fragment.samples)
        due += fragment.duration
    assert due == 13 * RATE + PRIMING  # what primes the decoder is in the media, not in the programme


def test_the_last_packet_is_cut_to_the_programme_s_end(split: Callable[..., Track], tmp_path: Path) -> None:
    split(programme(616), Fraction(13001, 1000))
    last = fragments(tmp_path / "audio")[-1].samples[-1]
    whole = sum(sample.duration for fragment in fragments(tmp_path / "audio") for sample in fragment.samples)
    assert 0 < last.duration <= PACKET
    assert whole - PRIMING == round(Fraction(13001, 1000) * RATE)


def test_a_programme_without_priming(split: Callable[..., Track], tmp_path: Path) -> None:
    track = split(programme(600, priming=0), 12)
    assert [segment.ticks for segment in track.segments] == [281 * PACKET, 12 * RATE - 281 * PACKET]


def test_sound_a_packet_short_is_drawn_out_and_more_is_refused(split: Callable[..., Track], tmp_path: Path) -> None:
    split(programme(563), 12)  # 562 heard: 11.99 s
    assert fragments(tmp_path / "audio")[-1].samples[-1].duration > PACKET
    with pytest.raises(OutputRejected, match=r"the audio ends 0\.3% early"):
        split(programme(562), 12)
    with pytest.raises(OutputRejected, match="early"):
        split(programme(300), 12)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (programme(0), "it is empty"),
        (b"", ""),
        (b"no movie", ""),
        (programme(600)[:-1], "claims 316 bytes, but only 315 are there"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, reason: str, split: Callable[..., Track]) -> None:
    with pytest.raises(OutputRejected) as error:
        split(data, 12)
    assert error.value.detail.startswith("The output of audio failed its check: ")
    assert reason in error.value.detail


def test_a_replay_shorter_than_a_packet(split: Callable[..., Track], tmp_path: Path) -> None:
    track = split(programme(4), Fraction(1, 60))
    assert [segment.ticks for segment in track.segments] == [800]
    assert len(fragments(tmp_path / "audio")) == 1


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 900),
    rate=st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60)]),
    each=st.integers(1, 400),
    priming=st.sampled_from([0, 1024, 2048]),
)
def test_whatever_the_length_nothing_is_lost_or_moved(
    frames: int, rate: Fraction, each: int, priming: int, split: Callable[..., Track], tmp_path: Path
) -> None:
    for old in (tmp_path / "audio").glob("*"):
        old.unlink()
    duration, segment = frames / rate, round(2 * rate) * 3 / rate
    needed = -(-round(duration * RATE + priming) // PACKET)
    track = split(programme(needed + 3, each, priming), duration, segment)
    assert sum(each.ticks for each in track.segments) == round(duration * RATE)
    assert len(track.segments) in (-(-duration // segment), -(-duration // segment) - 1 or 1)
    assert contents(tmp_path / "audio") == [payload(number) for number in range(track.frames)]
    ends = 0
    for number, made in enumerate(track.segments[:-1], 1):
        ends += made.ticks
        assert abs(ends - number * segment * RATE) <= PACKET
