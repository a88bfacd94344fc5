"""Box reading on bytes built by hand: every flag, every version, and garbage."""

from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_worker.boxes import BoxError, Sample, iter_boxes, nal_types, parse_fragments, parse_init, parse_tracks
from media_worker.boxes.sample_entry import av1_codec, hevc_codec, mp4a_codec, vp9_codec

NON_SYNC = 0x0001_0000
SYNC = 0x0200_0000


def box(kind: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind.encode("latin-1")) + body


def full(kind: str, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


SPS, PPS = bytes.fromhex("67640028acd9"), bytes.fromhex("68ebe3cb")
AVCC = box(
    "avcC",
    bytes([1, 0x64, 0x00, 0x28, 0xFF, 0xE1]),
    struct.pack(">H", len(SPS)) + SPS,
    bytes([1]),
    struct.pack(">H", len(PPS)) + PPS,
)
ESDS = full("esds", 0, 0, bytes.fromhex("03808080220001000480808014401500000000000000000000000580808002119006"))


def visual(kind: str, config: bytes, width: int = 1280, height: int = 720) -> bytes:
    return box(kind, bytes(24), struct.pack(">HH", width, height), bytes(50), config)


def sound(config: bytes, channels: int = 2, rate: int = 48000) -> bytes:
    return box("mp4a", bytes(16), struct.pack(">HH", channels, 16), bytes(4), u32(rate << 16), config)


def trak(track_id: int, handler: str, timescale: int, entry: bytes, edits: bytes = b"", version: int = 0) -> bytes:
    times = bytes(16 if version else 8)
    return box(
        "trak",
        full("tkhd", version, 3, times, u32(track_id), bytes(60)),
        edits,
        box(
            "mdia",
            full("mdhd", version, 0, times, u32(timescale), bytes(8)),
            full("hdlr", 0, 0, bytes(4), handler.encode(), bytes(13)),
            box("minf", box("stbl", full("stsd", 0, 0, u32(1), entry))),
        ),
    )


def moov(*traks: bytes, trex: bytes = b"", version: int = 0) -> bytes:
    return box(
        "moov",
        full("mvhd", version, 0, bytes(16 if version else 8), u32(1000), bytes(80)),
        *traks,
        box("mvex", trex),
    )


FTYP = box("ftyp", b"iso5", u32(512), b"iso5")
VIDEO = FTYP + moov(
    trak(1, "vide", 30000, visual("avc1", AVCC)), trex=full("trex", 0, 0, u32(1, 1, 1001, 50, NON_SYNC))
)
INIT = parse_init(VIDEO)


# --- boxes ---------------------------------------------------------------------------------------


def test_boxes_lie_side_by_side() -> None:
    data = box("free", b"abc") + struct.pack(">I4sQ", 1, b"mdat", 20) + b"wxyz" + struct.pack(">I4s", 0, b"mdat") + b"z"
    found = [(each.type, each.offset, each.size, each.header_size) for each in iter_boxes(data)]
    assert found == [("free", 0, 11, 8), ("mdat", 11, 20, 16), ("mdat", 31, 9, 8)]
    assert [each.content for each in iter_boxes(data)] == [8, 27, 39]
    assert [each.type for each in iter_boxes(memoryview(data))] == ["free", "mdat", "mdat"]


def test_a_uuid_box_has_a_longer_header() -> None:
    (found,) = iter_boxes(box("uuid", bytes(16), b"x"))
    assert (found.header_size, found.size) == (24, 25)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0", "3 stray bytes at 0"),
        (box("free") + b"\0", "1 stray bytes at 8"),
        (struct.pack(">I4s", 4, b"free"), "claims 4 bytes, less than its own header"),
        (struct.pack(">I4sQ", 1, b"mdat", 15), "claims 15 bytes, less than its own header"),
        (struct.pack(">I4s", 1, b"mdat"), "runs past its box's end"),
        (struct.pack(">I4s", 9, b"free"), "claims 9 bytes, but only 8 are there"),
        (box("uuid", bytes(15)), "less than its own header"),
        (b"\0\0\0\x08\0\1\2\3", "no box at 0"),
        (b"<html><body>not a box</body></html>", "claims 1013478509 bytes"),
    ],
)
def test_garbage_is_an_error_that_says_where(data: bytes, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        list(iter_boxes(data))


def test_a_cut_box_is_allowed_where_asked() -> None:
    data = box("moof", b"ab") + struct.pack(">I4s", 100, b"mdat") + b"xy"
    assert [(each.type, each.size) for each in iter_boxes(data, truncated=True)] == [("moof", 10), ("mdat", 10)]
    assert [each.type for each in iter_boxes(data[:13], truncated=True)] == ["moof"]


# --- the init segment ----------------------------------------------------------------------------


def test_a_video_track() -> None:
    assert (INIT.track_id, INIT.timescale, INIT.handler) == (1, 30000, "vide")
    assert (INIT.codecs, INIT.width, INIT.height, INIT.nal_length_size) == ("avc1.640028", 1280, 720, 4)
    assert (INIT.sps, INIT.pps) == ((SPS,), (PPS,))
    assert (INIT.default_sample_duration, INIT.default_sample_size) == (1001, 50)
    assert INIT.default_sample_flags == NON_SYNC
    assert INIT.edit_media_time is None
    assert INIT.edit_delay_seconds == 0
    assert INIT.size == len(VIDEO)


@pytest.mark.parametrize("kind", ["moof", "styp", "sidx", "emsg", "mdat"])
def test_the_init_ends_where_media_begins(kind: str) -> None:
    assert parse_init(VIDEO + box(kind, bytes(20))).size == len(VIDEO)


def test_long_headers_are_read() -> None:
    init = parse_init(FTYP + moov(trak(7, "vide", 90000, visual("avc1", AVCC), version=1), version=1))
    assert (init.track_id, init.timescale) == (7, 90000)


@pytest.mark.parametrize(
    ("version", "entries", "media_time", "delay"),
    [
        (0, [(0, 1024)], 1024, Fraction(0)),
        (0, [(250, -1), (0, 0)], 0, Fraction(1, 4)),
        (1, [(500, -1), (500, -1), (0, 2**33)], 2**33, Fraction(1)),
        (0, [(250, -1)], None, Fraction(1, 4)),
    ],
)
def test_edit_lists(version: int, entries: list[tuple[int, int]], media_time: int | None, delay: Fraction) -> None:
    form = ">Qq" if version else ">Ii"
    rows = b"".join(struct.pack(form, *entry) + u32(0x10000) for entry in entries)
    edits = box("edts", full("elst", version, 0, u32(len(entries)), rows))
    init = parse_init(FTYP + moov(trak(2, "soun", 48000, sound(ESDS), edits)))
    assert (init.edit_media_time, init.edit_delay_seconds) == (media_time, delay)
    assert (init.codecs, init.channels, init.sample_rate) == ("mp4a.40.2", 2, 48000)
    assert (init.width, init.nal_length_size) == (0, 0)


def test_several_tracks_are_no_single_track() -> None:
    data = FTYP + moov(
        trak(1, "vide", 30000, visual("avc1", AVCC)),
        trak(2, "soun", 48000, sound(ESDS)),
        trak(3, "subt", 1000, box("stpp")),
    )
    assert [(each.track_id, each.handler) for each in parse_tracks(data)] == [(1, "vide"), (2, "soun")]
    with pytest.raises(BoxError, match="2 audio and video tracks"):
        parse_init(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no moov"),
        (FTYP, "no moov"),
        (box("moof"), "no moov"),
        (FTYP + box("moov"), "holds no mvhd"),
        (FTYP + moov(), "has 0 audio and video tracks"),
        (FTYP + moov(box("trak")), "holds no mdia/hdlr"),
        (FTYP + moov(trak(1, "vide", 0, visual("avc1", AVCC))), "timescale of 0"),
        (FTYP + moov(trak(1, "vide", 1, b"")), "no sample description"),
        (FTYP + moov(trak(1, "vide", 1, box("avc1", bytes(20)))), "cut short"),
        (FTYP + moov(trak(1, "vide", 1, visual("avc1", AVCC[:14]))), "cut short"),
    ],
)
def test_a_broken_init_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        parse_init(data)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # Configuration records of Main, 4.0 and of Main 10, High tier, 5.1 (ISO/IEC 14496-15 annex E gives the form).
        (hevc_codec("hvc1", bytes.fromhex("01016000000090000000000078")), "hvc1.1.6.L120.90"),
        (hevc_codec("hev1", bytes.fromhex("01222000000000000000000099")), "hev1.2.4.H153"),
        (hevc_codec("hvc1", bytes.fromhex("014120000000b0230000000078")), "hvc1.A1.4.L120.B0.23"),
        # The binding's own examples: Main, level 3.0, 8 bit; Professional, High tier, 12 bit.
        (av1_codec(bytes.fromhex("81040c00")), "av01.0.04M.08"),
        (av1_codec(bytes([0x81, 0x2D, 0xC0, 0])), "av01.1.13H.10"),
        (av1_codec(bytes([0x81, 0x50, 0x60, 0])), "av01.2.16M.12"),
        (vp9_codec(bytes([1, 0, 0, 0, 2, 41, 0xA2])), "vp09.02.41.10"),
        (mp4a_codec(ESDS[8:]), "mp4a.40.2"),
        (mp4a_codec(bytes.fromhex("0000000003150001000411" "40150000000000000000000000" "05022b10")), "mp4a.40.5"),
        (mp4a_codec(bytes.fromhex("0000000003150001000411" "40150000000000000000000000" "0502f946")), "mp4a.40.42"),
        (mp4a_codec(bytes.fromhex("000000000313000100040d" "6b150000000000000000000000")), "mp4a.6b"),
        # An ES descriptor that names the one it depends on.
        (mp4a_codec(bytes.fromhex("0000000003180001800007" "041140150000000000000000000000" "05021190")), "mp4a.40.2"),
    ],
)  # fmt: skip
def test_codec_strings(told: str, expected: str) -> None:
    assert told == expected


def test_an_unknown_codec_is_its_own_name() -> None:
    assert parse_init(FTYP + moov(trak(1, "vide", 1, visual("xyz1", b"")))).codecs == "xyz1"


# --- fragments -----------------------------------------------------------------------------------


def moof(*trafs: bytes) -> bytes:
    return box("moof", full("mfhd", 0, 0, u32(1)), *trafs)


def fragment(tfhd: bytes, tfdt: bytes, *truns: bytes) -> bytes:
    return moof(box("traf", tfhd, tfdt, *truns))


BASE_IS_MOOF = full("tfhd", 0, 0x02_0000, u32(1))
AT_100 = full("tfdt", 0, 0, u32(100))


def test_defaults_come_from_trex() -> None:
    head = fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0x01, u32(2), struct.pack(">i", 100)))
    (found,) = parse_fragments(head + box("mdat", bytes(200)), INIT)
    assert (found.offset, found.size, found.track_id, found.base_decode_time) == (0, len(head) + 208, 1, 100)
    assert found.samples == (Sample(1001, 50, False, 0, 100), Sample(1001, 50, False, 0, 150))
    assert found.duration == 2002


def test_defaults_of_the_fragment_come_first_and_the_run_before_them() -> None:
    tfhd = full("tfhd", 0, 0x02_0038, u32(1, 1000, 10, NON_SYNC))
    plain = full("trun", 0, 0x05, u32(2, 90, SYNC))
    whole = full("trun", 1, 0xF00, u32(1, 500, 7, SYNC), struct.pack(">i", -3))
    (found,) = parse_fragments(fragment(tfhd, full("tfdt", 1, 0, struct.pack(">Q", 2**40)), plain, whole) + bytes([0, 0, 0, 108]) + b"mdat" + bytes(100), INIT)  # fmt: skip  # noqa: E501
    assert found.base_decode_time == 2**40
    assert found.samples == (
        Sample(1000, 10, True, 0, 90),
        Sample(1000, 10, False, 0, 100),
        Sample(500, 7, True, -3, 110),  # a run without an offset goes on where the last ended
    )


def test_composition_offsets_of_version_0_are_unsigned() -> None:
    head = fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0x801, u32(1, 20), u32(0xFFFF_FFFF)))
    (found,) = parse_fragments(head + box("mdat", bytes(200)), INIT)
    assert found.samples[0].composition_offset == 0xFFFF_FFFF


def test_an_explicit_base_and_the_oldest_rule() -> None:
    explicit = full("tfhd", 0, 0x01, u32(1), struct.pack(">Q", 8))
    lead = box("styp", b"msdh", u32(0)) + box("sidx", bytes(24)) + box("emsg", bytes(12))
    head = lead + fragment(explicit, AT_100, full("trun", 0, 0x01, u32(1), struct.pack(">i", 4)))
    (found,) = parse_fragments(head + box("mdat", bytes(50)) + box("mfra", bytes(8)), INIT)
    assert found.samples[0].offset == 12
    assert found.offset == len(lead)
    # Without base or offset: the first traf begins at the moof, the next where the last one's data ended.
    other = box("traf", full("tfhd", 0, 0x10, u32(2, 30)), AT_100, full("trun", 0, 0x01, u32(1), struct.pack(">i", 70)))
    ours = box("traf", full("tfhd", 0, 0, u32(1)), AT_100, full("trun", 0, 0, u32(1)))
    (found,) = parse_fragments(moof(other, ours) + box("mdat", bytes(200)), INIT)
    assert found.samples[0].offset == 100


def test_fragments_of_other_tracks_are_passed_over() -> None:
    other = box("traf", full("tfhd", 0, 0x02_0000, u32(9)), AT_100, full("trun", 0, 0, u32(0)))
    assert parse_fragments(moof(other) + box("mdat"), INIT) == ()


def test_each_moof_is_a_fragment_up_to_its_mdat() -> None:
    one = fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0x01, u32(1), struct.pack(">i", 80))) + box("mdat", bytes(60))
    first, second = parse_fragments(VIDEO + one + box("free") + one, INIT)
    assert (first.offset, first.size) == (len(VIDEO), len(one))
    assert (second.offset, second.size) == (len(VIDEO) + len(one) + 8, len(one))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (moof(box("traf", BASE_IS_MOOF)), "no tfdt"),
        (moof(box("traf")), "holds no tfhd"),
        (fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0x100, u32(3, 1, 1))), "claims 3 samples, more than it holds"),
        (fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0, u32(0xFFFF_FFFF))), "more than it holds"),
        (fragment(BASE_IS_MOOF, full("tfdt", 1, 0, u32(1))), "runs past its box's end"),
        (fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0, u32(9))), "run past the data's end"),
    ],
)
def test_a_broken_fragment_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        parse_fragments(data, INIT)


def test_a_byte_range_may_end_inside_its_mdat() -> None:
    head = fragment(BASE_IS_MOOF, AT_100, full("trun", 0, 0x01, u32(2), struct.pack(">i", 100)))
    data = head + struct.pack(">I4s", 500, b"mdat") + bytes(50)
    with pytest.raises(BoxError, match="claims 500 bytes"):
        parse_fragments(data, INIT)
    (found,) = parse_fragments(data, INIT, truncated=True)
    assert (len(found.samples), found.size) == (2, len(data))


@given(st.data())
def test_no_damage_gives_anything_but_a_box_error(data: st.DataObject) -> None:
    head = fragment(
        full("tfhd", 0, 0x02_0038, u32(1, 1000, 10, 0)), AT_100, full("trun", 1, 0xF01, u32(1, 80), bytes(16))
    )
    whole = bytearray(VIDEO + head + box("mdat", bytes(60)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(BoxError):  # the only error there may be
        for track in parse_tracks(damaged):
            for each in parse_fragments(damaged, track):
                for sample in each.samples:
                    nal_types(damaged, sample, track.nal_length_size or 4)


# --- inside a sample -----------------------------------------------------------------------------


def sample_of(size: int, offset: int = 2) -> Sample:
    return Sample(1, size, True, 0, offset)


def test_nal_types_of_a_sample() -> None:
    data = (
        b"??" + struct.pack(">I", 2) + b"\x67\x64" + struct.pack(">I", 1) + b"\x68" + struct.pack(">I", 3) + b"\x65ab"
    )
    assert nal_types(data, sample_of(len(data) - 2), 4) == (7, 8, 5)
    assert nal_types(memoryview(b"??\x01\x41"), sample_of(2), 1) == (1,)
    assert nal_types(b"??\x00\x02\x26\x01", sample_of(4), 2, hevc=True) == (19,)


@pytest.mark.parametrize(
    ("data", "size", "length_size", "message"),
    [
        (b"??\0\0\0\x05abc", 7, 4, "does not fit its sample"),
        (b"??\0\0\0\0", 4, 4, "of 0 bytes"),
        (b"??\0\0", 2, 4, "runs past"),
        (b"??abcd", 40, 4, "not wholly in the data"),
        (b"??abcd", 4, 3, "none of 1, 2, 4"),
    ],
)
def test_a_sample_that_is_no_nal_units_is_an_error(data: bytes, size: int, length_size: int, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        nal_types(data, sample_of(size), length_size)
