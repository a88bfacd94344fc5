"""The verifier, of a presentation that is broken one rule at a time: it names exactly that rule."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from media_worker.boxes import iter_boxes, parse_fragments, parse_init
from media_worker.verify import RULES, verify
from tests.hls_clips import (
    FRAME_RATE,
    SECONDS,
    VIDEO_FLAGS,
    Hls,
    broken_rules,
    cut,
    encode_audio,
    encode_video,
    plan_of,
)

SIZES = (("180p", 320, 180), ("90p", 160, 90))


def patch(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def shift_decode_times(path: Path, ticks: int) -> None:
    def change(data: bytearray) -> None:
        for moof in iter_boxes(bytes(data)):
            if moof.type != "moof":
                continue
            for traf in iter_boxes(bytes(data), moof.content, moof.end):
                if traf.type != "traf":
                    continue
                for box in iter_boxes(bytes(data), traf.content, traf.end):
                    if box.type == "tfdt":
                        version = data[box.content]
                        form = ">Q" if version else ">I"
                        (before,) = struct.unpack_from(form, data, box.content + 4)
                        struct.pack_into(form, data, box.content + 4, before + ticks)

    patch(path, change)


def half_a_segment(hls: Hls) -> None:
    path = hls.folder / "90p/seg-00001.m4s"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage_for_a_segment(hls: Hls) -> None:
    path = hls.folder / "90p/seg-00001.m4s"
    path.write_bytes(b"\x00" * path.stat().st_size)


def no_such_segment(hls: Hls) -> None:
    (hls.folder / "audio/seg-00001.m4s").unlink()


def no_init(hls: Hls) -> None:
    (hls.folder / "audio/init.mp4").unlink()


def no_media_playlist(hls: Hls) -> None:
    (hls.folder / "audio/playlist.m3u8").unlink()


def damaged_picture(hls: Hls) -> None:
    init = parse_init((hls.folder / "180p/init.mp4").read_bytes())

    def change(data: bytearray) -> None:
        sample = parse_fragments(bytes(data), init)[1].samples[0]
        middle = sample.offset + sample.size // 2
        data[middle : middle + 400] = bytes(range(1, 201)) * 2

    patch(hls.folder / "180p/seg-00001.m4s", change)


def shown_out_of_place(hls: Hls) -> None:
    """A frame's composition time is moved by half a frame."""

    def change(data: bytearray) -> None:
        at = bytes(data).index(b"trun") + 4
        flags = int.from_bytes(data[at + 1 : at + 4], "big")
        assert flags & 0x800
        each = 4 * (flags >> 8 & 0xF).bit_count()
        first = at + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
        offset = first + 20 * each + each - 4
        (before,) = struct.unpack_from(">i", data, offset)
        struct.pack_into(">i", data, offset, before + 500)

    patch(hls.folder / "90p/seg-00001.m4s", change)


def decode_times_leave_a_hole(hls: Hls) -> None:
    for number in (1, 2):
        shift_decode_times(hls.folder / f"90p/seg-{number:05d}.m4s", 10_000)


def decode_times_overlap(hls: Hls) -> None:
    shift_decode_times(hls.folder / "90p/seg-00001.m4s", 10_000)


def decode_time_restarts(hls: Hls) -> None:
    shift_decode_times(hls.folder / "audio/seg-00001.m4s", -265_000)


def audio_begins_late(hls: Hls) -> None:
    for number in range(3):
        shift_decode_times(hls.folder / f"audio/seg-{number:05d}.m4s", 48_000)


def audio_ends_early(hls: Hls) -> None:
    encode_audio(hls.folder / "short.mp4", SECONDS - 0.2)
    hls.audio["audio"] = cut(hls.folder / "short.mp4", hls.folder / "audio", [1])
    hls.write_playlists()


def recut(hls: Hls, per_segment: list[int], names: tuple[str, ...], *more: str, rate: int = FRAME_RATE) -> None:
    for name, width, height in SIZES:
        if name in names:
            encode_video(hls.folder / f"{name}.mp4", width, height, rate=rate, more=more)
            hls.video[name] = cut(hls.folder / f"{name}.mp4", hls.folder / name, per_segment)
    hls.write_playlists()


def borders_not_aligned(hls: Hls) -> None:
    recut(hls, [3, 2], ("90p",))


def one_segment_less_cut(hls: Hls) -> None:
    # 6 s and 8 s against 6, 6 and 2: the border they share is aligned, the number is not.
    recut(hls, [3, 4], ("90p",))
    hls.edit("90p/playlist.m3u8", "TARGETDURATION:8", "TARGETDURATION:6")


def starts_between_idrs(hls: Hls) -> None:
    # Every frame a fragment: the second segment begins one frame before its IDR.
    recut(hls, [179, 181], ("180p", "90p"), "-bf", "0", "-movflags", f"frag_every_frame+{VIDEO_FLAGS}")


def idr_every_three_seconds(hls: Hls) -> None:
    recut(hls, [2], ("180p", "90p"), "-g", str(3 * FRAME_RATE), "-keyint_min", str(3 * FRAME_RATE))


def one_frame_less(hls: Hls) -> None:
    recut(hls, [3], ("90p",), "-frames:v", str(SECONDS * FRAME_RATE - 1))


def segments_too_long(hls: Hls) -> None:
    recut(hls, [4, 3], ("180p", "90p"))
    for name in ("180p", "90p"):
        hls.edit(f"{name}/playlist.m3u8", "TARGETDURATION:8", "TARGETDURATION:6")


def one_heavy_segment(hls: Hls) -> None:
    path = hls.folder / "180p/seg-00001.m4s"
    padding = 5_000_000
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", padding, b"free") + bytes(padding - 8))
    track = hls.video["180p"]
    heavier = track.segments[1].model_copy(update={"size_bytes": path.stat().st_size})
    segments = (track.segments[0], heavier, track.segments[2])
    hls.video["180p"] = track.model_copy(update={"segments": segments})
    hls.write_playlists()


def wrong_iframe_range(hls: Hls) -> None:
    frame = hls.video["90p"].segments[0].iframes[1]
    hls.edit("90p/iframes.m3u8", f"{frame.size_bytes}@{frame.offset}", f"{frame.size_bytes}@{frame.offset + 8}")


def iframe_cut_short(hls: Hls) -> None:
    frame = hls.video["90p"].segments[0].iframes[1]
    hls.edit("90p/iframes.m3u8", f"{frame.size_bytes}@{frame.offset}", f"{frame.size_bytes - 1}@{frame.offset}")


def iframes_end_early(hls: Hls) -> None:
    path = hls.folder / "90p/iframes.m3u8"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-4], lines[-1]]) + "\n")


def no_iframes(hls: Hls) -> None:
    lines = [line for line in hls.master.read_text().splitlines() if "I-FRAME-STREAM-INF" not in line]
    hls.master.write_text("\n".join(lines) + "\n")


def no_independence(hls: Hls) -> None:
    for name in ("master.m3u8", "180p/playlist.m3u8", "90p/playlist.m3u8"):
        hls.edit(name, "#EXT-X-INDEPENDENT-SEGMENTS\n", "")


def silence(hls: Hls, name: str) -> None:
    """Take CODECS and bit rates of the audio from one variant: what it plays is the video alone."""
    (measured,) = (each for each in verify(str(hls.master), decode=False).renditions if each.name.startswith(name))
    lines = hls.master.read_text().splitlines()
    index = lines.index(f"{name}/playlist.m3u8") - 1
    rest = lines[index].replace(",mp4a.40.2", "").split(",CODECS", 1)[1]
    rates = f"BANDWIDTH={measured.peak_bps},AVERAGE-BANDWIDTH={measured.average_bps}"
    lines[index] = f"#EXT-X-STREAM-INF:{rates},CODECS{rest}"
    hls.master.write_text("\n".join(lines) + "\n")


def no_audio_rendition(hls: Hls) -> None:
    for name in ("180p", "90p"):
        silence(hls, name)
    lines = [line for line in hls.master.read_text().splitlines() if not line.startswith("#EXT-X-MEDIA")]
    hls.master.write_text("\n".join(lines) + "\n")


def one_variant_without_sound(hls: Hls) -> None:
    silence(hls, "90p")
    before, after = hls.master.read_text().rsplit(',AUDIO="audio"', 1)
    hls.master.write_text(before + after)


def another_target(hls: Hls) -> None:
    hls.edit("audio/playlist.m3u8", "TARGETDURATION:6", "TARGETDURATION:7")


def iframe_rate(hls: Hls) -> None:
    hls.edit("master.m3u8", "I-FRAME-STREAM-INF:BANDWIDTH=", "I-FRAME-STREAM-INF:BANDWIDTH=9")


def text(name: str, old: str, new: str) -> Callable[[Hls], None]:
    return lambda hls: hls.edit(name, old, new)


def told(attribute: str, share: float) -> Callable[[Hls], None]:
    """A STREAM-INF attribute's value times `share`; 0 takes it away."""

    def change(hls: Hls) -> None:
        mark = f"{attribute}="
        line = next(each for each in hls.master.read_text().splitlines() if each.startswith("#EXT-X-STREAM-INF"))
        at = next(part for part in line.split(":", 1)[1].split(",") if part.startswith(mark))
        changed = f"{mark}{round(int(at.removeprefix(mark)) * share)}" if share else "X-NOTHING=1"
        # BANDWIDTH is also the end of AVERAGE-BANDWIDTH.
        start = ":" if attribute == "BANDWIDTH" else ","
        hls.edit("master.m3u8", f"{start}{at},", f"{start}{changed},")

    return change


BREAKAGES: list[tuple[str, Callable[[Hls], None], set[str]]] = [
    ("half a segment", half_a_segment, {"readable"}),
    ("garbage for a segment", garbage_for_a_segment, {"readable"}),
    ("no such segment", no_such_segment, {"readable"}),
    ("no init section", no_init, {"readable"}),
    ("no media playlist", no_media_playlist, {"readable"}),
    ("a playlist without segments", text("audio/playlist.m3u8", "#EXTINF", "#NOT"), {"readable"}),
    ("a damaged picture", damaged_picture, {"decodes"}),
    ("a frame out of place", shown_out_of_place, {"continuous"}),
    ("tfdt leaves a hole", decode_times_leave_a_hole, {"continuous"}),
    ("tfdt overlaps what follows", decode_times_overlap, {"continuous", "frames"}),
    ("tfdt restarts", decode_time_restarts, {"continuous", "frames"}),
    ("audio begins late", audio_begins_late, {"same-start"}),
    ("audio ends early", audio_ends_early, {"same-duration"}),
    ("borders not aligned", borders_not_aligned, {"aligned"}),
    ("a border is missing", one_segment_less_cut, {"aligned", "segment-length"}),
    ("a segment starts between IDRs", starts_between_idrs, {"segment-idr"}),
    ("IDR every 3 s", idr_every_three_seconds, {"idr-interval"}),
    ("one frame less in a rung", one_frame_less, {"same-frames"}),
    ("segments too long", segments_too_long, {"segment-length"}),
    ("one heavy segment", one_heavy_segment, {"peak"}),
    ("EXTINF too long", text("90p/playlist.m3u8", "#EXTINF:2.000000", "#EXTINF:2.040000"), {"extinf"}),
    ("wrong video codec", text("master.m3u8", 'CODECS="avc1.64000b,', 'CODECS="avc1.64001f,'), {"codecs"}),
    ("wrong audio codec", text("master.m3u8", "mp4a.40.2", "mp4a.40.34"), {"codecs"}),
    ("no BANDWIDTH", told("BANDWIDTH", 0), {"bandwidth"}),
    ("no CODECS", text("master.m3u8", 'CODECS="avc1.64000b,mp4a.40.2",', ""), {"codecs"}),
    ("wrong RESOLUTION", text("master.m3u8", "160x90,FRAME", "160x92,FRAME"), {"resolution"}),
    ("no RESOLUTION", text("master.m3u8", "RESOLUTION=160x90,FRAME", "FRAME"), {"resolution"}),
    ("29.97 for 30", text("master.m3u8", "FRAME-RATE=30.000", "FRAME-RATE=29.970"), {"frame-rate"}),
    ("no FRAME-RATE", text("master.m3u8", "FRAME-RATE=30.000,", ""), {"frame-rate"}),
    ("BANDWIDTH too high", told("BANDWIDTH", 1.2), {"bandwidth"}),
    ("BANDWIDTH too low", told("BANDWIDTH", 0.85), {"bandwidth"}),
    ("AVERAGE-BANDWIDTH too high", told("AVERAGE-BANDWIDTH", 1.2), {"average-bandwidth"}),
    ("ENDLIST missing", text("90p/playlist.m3u8", "#EXT-X-ENDLIST\n", ""), {"vod"}),
    ("an EVENT", text("audio/playlist.m3u8", "TYPE:VOD", "TYPE:EVENT"), {"vod"}),
    ("no PLAYLIST-TYPE", text("90p/iframes.m3u8", "#EXT-X-PLAYLIST-TYPE:VOD\n", ""), {"vod"}),
    ("no EXT-X-MAP", text("90p/playlist.m3u8", '#EXT-X-MAP:URI="init.mp4"\n', ""), {"map"}),
    ("nobody says segments are independent", no_independence, {"independent-segments"}),
    ("no audio rendition", no_audio_rendition, {"separate-audio"}),
    ("one variant without sound", one_variant_without_sound, {"separate-audio"}),
    ("no LANGUAGE", text("master.m3u8", 'LANGUAGE="en",', ""), {"audio-language"}),
    ("another target", another_target, {"same-target", "target-duration"}),
    ("encrypted", text("90p/playlist.m3u8", "#EXT-X-MAP", '#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXT-X-MAP'), {"clear"}),
    ("no I-frame playlist", no_iframes, {"iframes"}),
    ("not marked as I-frames only", text("90p/iframes.m3u8", "#EXT-X-I-FRAMES-ONLY\n", ""), {"iframes"}),
    ("an I-frame's range is off", wrong_iframe_range, {"iframe-ranges"}),
    ("an I-frame is cut short", iframe_cut_short, {"iframe-ranges"}),
    ("I-frames end early", iframes_end_early, {"iframe-duration"}),
    ("I-frame BANDWIDTH", iframe_rate, {"iframe-bandwidth"}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [each[1:] for each in BREAKAGES], ids=[each[0] for each in BREAKAGES])
def test_what_is_broken_is_what_is_found(hls: Hls, change: Callable[[Hls], None], expected: set[str]) -> None:
    change(hls)
    report = verify(str(hls.master))
    assert broken_rules(report) == expected, [f"{each.rule}: {each.where}: {each.message}" for each in report.findings]
    levels = {rule.id: rule.level for rule in RULES}
    assert report.ok == all(levels[rule] == "should" for rule in expected)
    assert [each.level for each in report.findings] == sorted(each.level for each in report.findings)


def test_every_rule_is_broken_by_some_test() -> None:
    covered = set().union(*(expected for _, _, expected in BREAKAGES))
    assert {rule.id for rule in RULES} - covered == {"master"}  # tested below


def test_a_media_playlist_alone_is_no_presentation(correct: Hls) -> None:
    report = verify(str(correct.folder / "180p/playlist.m3u8"))
    assert broken_rules(report) == {"master"}
    assert report.renditions[0].decoded_frames == SECONDS * FRAME_RATE


def test_a_rung_of_half_the_frame_rate_is_right(hls: Hls) -> None:
    encode_video(hls.folder / "90p.mp4", 160, 90, rate=15)
    hls.video["90p"] = cut(hls.folder / "90p.mp4", hls.folder / "90p", [3])
    hls.plan = plan_of((("180p", 320, 180, 30), ("90p", 160, 90, 15)))
    hls.write_playlists()
    report = verify(str(hls.master))
    assert report.findings == ()
    assert [each.samples for each in report.renditions[:2]] == [420, 210]


def test_a_presentation_without_sound_is_right(hls: Hls) -> None:
    hls.plan = plan_of((("180p", 320, 180, 30), ("90p", 160, 90, 30)), audio=False)
    hls.audio = {}
    hls.write_playlists()
    assert verify(str(hls.master)).findings == ()
