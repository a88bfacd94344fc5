"""Every kind of recording becomes its replay frame by frame, however often it is cut on the way.

Chunks here are a second long, so that even a short clip is entered in many places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from media_worker.boxes import parse_fragments, parse_init
from pipelines.playlists import join_tracks
from tests.clip_builders import Recipe, Source, ffmpeg, h264, hevc
from tests.clips import CLIPS
from tests.frame_numbers import read_frame_number
from tests.production import Production, decode_video, look_at, media_settings

# Pictures that no poster must be made of are of no interest here.
PICTURES = {"black-intro", "all-black", "dissolve", "fade-in", "blurred-start"}
GOOD = [name for name, clip in CLIPS.items() if clip.error is None and name not in PICTURES]
# The sound of the first part goes on a packet longer than its pictures: so that none of it is lost and both stay
# together, the last picture stands until it ends.
STANDS_AT_THE_BREAK = ("jump-flv", "restart-flv")

Produce = Callable[[str], Production]


@pytest.fixture(scope="module")
def produce(clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Produce]:
    """The clip's replay, video alone, made once."""
    made: dict[str, Production] = {}

    def production(name: str) -> Production:
        if name not in made:
            source, folder = clip(name), tmp_path_factory.mktemp(name)
            made[name] = Production(source, folder, media_settings(folder, source.parent))
            made[name].make_chunks()
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.plan._GOP_SECONDS", 1)
        patch.setattr("pipelines.plan._GOPS_A_SEGMENT", 1)
        patch.setattr("pipelines.plan._FEWEST_CHUNKS", 1000)
        patch.setattr("pipelines.plan._wasted", lambda *_: 0)  # cut between keyframes too
        yield production


def numbers_of(pictures: list[NDArray[np.uint8]]) -> list[int]:
    return [read_frame_number(picture) for picture in pictures]


def source_times(path: Path, origin: int) -> list[Fraction]:
    """Times of the recording's frames from its first decodable one, ascending, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        tick = stream.time_base or Fraction(1)
        return sorted(
            (packet.pts - origin) * tick
            for packet in container.demux(stream)
            if packet.pts is not None and packet.pts >= origin
        )


def expected_numbers(name: str, made: Production) -> list[int]:
    """The number that must stand at each place of the grid: that of the last frame due there or before."""
    clip, count = CLIPS[name], made.plan.frames
    if name.startswith("hole"):
        return [n if n < 90 else 89 if n < 180 else n - 90 for n in range(count)]
    if name in STANDS_AT_THE_BREAK:
        return [n if n < 90 else n - 1 for n in range(count)]
    if not clip.variable:
        return [clip.first_number + n for n in range(count)]
    times = source_times(made.source, made.info.video.origin_pts)
    slots = [int(time * made.plan.frame_rate + Fraction(1, 2)) for time in times]
    shown = frames_painted(made.source)
    return [shown[max(n for n, slot in enumerate(slots) if slot <= place)] for place in range(count)]


def frames_painted(path: Path) -> list[int]:
    return numbers_of(decode_video(path)[0])


@pytest.mark.parametrize("name", GOOD)
def test_facts_are_those_of_the_clip(name: str, produce: Produce) -> None:
    clip, made = CLIPS[name], produce(name)
    video = made.info.video
    found = (video.codec, video.rotation, video.sample_aspect, video.bit_depth, video.hdr, video.interlaced)
    assert found == (clip.codec, clip.rotation, clip.sample_aspect, clip.bit_depth, clip.hdr, clip.interlaced)
    assert (video.width, video.height) == (clip.width, clip.height)
    assert video.variable_frame_rate == clip.variable
    if clip.frame_rate and clip.frames != 1:
        assert video.frame_rate == clip.frame_rate
    if clip.start_seconds is not None:
        assert float(video.origin_pts * video.time_base) == pytest.approx(clip.start_seconds, abs=0.002)
    sounds = [(track.codec, track.channels, track.sample_rate, track.language) for track in made.info.audio]
    assert sounds == [(sound.codec, sound.channels, sound.sample_rate, sound.language) for sound in clip.sounds]


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_there_once_in_its_place(name: str, produce: Produce) -> None:
    clip, made = CLIPS[name], produce(name)
    plan = made.plan
    if clip.frames is not None:
        assert plan.frames == clip.frames + (name in STANDS_AT_THE_BREAK)
    assert len(plan.chunks) == -(-plan.frames // plan.segment_frames)
    assert len(plan.chunks) >= 3 or plan.frames == 1
    for rung in plan.rungs:
        pictures, times = decode_video(made.whole(rung.name))
        assert times == [n / rung.frame_rate for n in range(-(-plan.frames // rung.frame_step))]
        assert {picture.shape for picture in pictures} == {(rung.height, rung.width)}
        if not (clip.numbered or clip.variable):
            continue
        expected = expected_numbers(name, made)[:: rung.frame_step]
        if name.startswith("truncated"):
            # Of the last frame only a part is there: itself or the one before is shown.
            assert numbers_of(pictures)[-1] in expected[-2:]
            pictures, expected = pictures[:-1], expected[:-1]
        assert numbers_of(pictures) == expected


@pytest.mark.parametrize("name", GOOD)
def test_segments_are_cmaf_at_absolute_times(name: str, produce: Produce) -> None:
    made = produce(name)
    plan = made.plan
    chunks = made.make_chunks()
    assert all(chunk.reused for chunk in chunks)
    for number, rung in enumerate(plan.rungs):
        track = join_tracks([chunk.tracks[number] for chunk in chunks])  # raises where an init differs
        assert [segment.name for segment in track.segments] == [f"seg-{n:05d}.m4s" for n in range(len(plan.chunks))]
        data = made.whole(rung.name).read_bytes()
        fragments = parse_fragments(data, parse_init(data))
        ticks = rung.timescale / rung.frame_rate
        assert [each.base_decode_time for each in fragments] == [
            n * plan.gop_frames // rung.frame_step * ticks for n in range(len(fragments))
        ]
        assert sum(segment.ticks for segment in track.segments) == track.frames * ticks


def test_one_frame_of_every_rate_is_counted(produce: Produce) -> None:
    rates = {name: produce(name).plan.frame_rate for name in GOOD if name.startswith("fps-")}
    assert sorted(rates.values()) == [
        Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("portrait", [(180, 320), (90, 160)]),
        ("rotated-90", [(180, 320), (90, 160)]),
        ("rotated-180", [(320, 180), (160, 90)]),
        ("rotated-270", [(180, 320), (90, 160)]),
        ("anamorphic-mp4", [(320, 180), (160, 90)]),
        ("anamorphic-ts", [(320, 180), (160, 90)]),
        ("odd-size-h264", [(320, 180), (160, 90)]),
        ("odd-size-vp9", [(320, 180), (160, 90)]),
        ("cover", [(320, 180), (160, 90)]),
    ],
)
def test_rungs_are_upright_with_square_pixels(name: str, sizes: list[tuple[int, int]], produce: Produce) -> None:
    """That the picture is upright says its number, which is read from the bottom."""
    made = produce(name)
    assert [(rung.width, rung.height) for rung in made.plan.rungs] == sizes
    for rung, size in zip(made.plan.rungs, sizes, strict=True):
        with av.open(str(made.whole(rung.name))) as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            assert (frame.width, frame.height) == size
            assert frame.rotation == 0
            assert stream.sample_aspect_ratio in (None, 1)


@pytest.mark.parametrize("name", ["interlaced", "interlaced-mpeg2"])
def test_interlaced_pictures_lose_their_combs(name: str, produce: Produce) -> None:
    made = produce(name)
    woven = combing(decode_video(made.source)[0])
    smooth = combing(decode_video(produce("fps-25").whole("180p"))[0])
    ours = combing(decode_video(made.whole("180p"))[0])
    assert woven > 2 * smooth
    assert ours < 1.3 * smooth


def combing(pictures: list[NDArray[np.uint8]]) -> float:
    """How much lines stand out from both their neighbours, to the same side, where something moves."""
    stack = np.stack(pictures[:20]).astype(float)[:, :130]
    up = stack[1:, 1:-1] - stack[1:, :-2]
    down = stack[1:, 1:-1] - stack[1:, 2:]
    moving = np.abs(np.diff(stack, axis=0))[:, 1:-1] > 20
    return float(np.clip(up * down, 0, None)[moving].mean())


@pytest.mark.parametrize("name", ["hdr-pq", "hdr-hlg"])
def test_hdr_looks_like_the_sdr_it_was_made_of(name: str, produce: Produce) -> None:
    made = produce(name)
    with av.open(str(made.whole("180p"))) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "yuv420p"
    tags = (int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), int(frame.color_range))
    assert tags == (1, 1, 1, 1)  # BT.709, limited: ITU-T H.273
    ours = np.stack(decode_video(made.whole("180p"))[0]).astype(float)
    plain = np.stack(decode_video(produce("mp4").whole("180p"))[0]).astype(float)
    assert abs(ours.mean() - plain.mean()) < 30
    assert ours.std() > 0.6 * plain.std()  # washed out: all of it grey
    assert np.corrcoef(ours.ravel(), plain.ravel())[0, 1] > 0.9


def test_what_is_brighter_than_white_keeps_its_shades(tmp_path: Path) -> None:
    """A ramp from black to 1,000 nits in PQ: none of it is cut off at SDR's white."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    ramp = "format=yuv420p10le,geq=lum='64+876*0.75*X/W':cb=512:cr=512,setparams=color_trc=smpte2084"
    tags = ("-pix_fmt", "yuv420p10le", "-profile:v", "main10", "-color_trc", "smpte2084", "-tag:v", "hvc1")
    # Nothing else is tagged, as by many encoders: BT.2020 is meant.
    Recipe(Source(frames=30, after=ramp, sounds=()), hevc(30, *tags))(folder / "ramp.mp4")
    made = Production(folder / "ramp.mp4", tmp_path, media_settings(tmp_path, folder))
    assert made.info.video.hdr
    assert made.info.video.color_primaries == "2"  # unspecified
    made.make_chunks()
    columns = decode_video(made.whole("180p"))[0][5].mean(axis=0)
    shades = columns[10:311:30]  # 100 nits are at 216
    assert (np.diff(shades) > 5).all(), shades


def test_the_last_frame_is_shown_however_late_it_comes(tmp_path: Path) -> None:
    """It is due in slot 120, though it ends before that slot does."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    late = r"settb=1/90000,setpts='PTS+if(eq(N\,119)\,0.55/30/TB\,0)'"
    exact = ("-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-bsf:v", "setts=duration=2100")
    Recipe(Source(after=late, sounds=()), (*h264(), *exact))(folder / "late.mp4")
    made = Production(folder / "late.mp4", tmp_path, media_settings(tmp_path, folder))
    assert made.plan.frames == 121
    made.make_chunks()
    assert numbers_of(decode_video(made.whole("180p"))[0]) == [*range(119), 118, 119]


@pytest.mark.parametrize("name", ["flv", "truncated-mkv"])
def test_a_long_recording_without_an_index_gets_one(
    name: str, clip: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_worker.recording._UNINDEXED_SECONDS", 1.0)
    source = clip(name)
    made = Production(source, tmp_path, media_settings(tmp_path, source.parent, chunk_seconds=6))
    assert made.info.source == "store:replays/r/.work/source.mkv"
    assert ("recording-truncated" in {note.code for note in made.info.notes}) == name.startswith("truncated")
    plain = look_at(source, tmp_path, media_settings(tmp_path, source.parent))
    assert made.info.video.frames == plain.video.frames
    made.make_chunks()
    made.make_audio()
    assert numbers_of(decode_video(made.whole("180p"))[0]) == list(range(made.plan.frames))


def test_a_clock_that_wraps_around_goes_on(clip: Callable[[str], Path], tmp_path: Path) -> None:
    """MPEG-TS has 33 bits for 90,000 ticks a second: after 26.5 hours it starts anew. Here after two seconds."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    wraps = ("-output_ts_offset", str(2**33 / 90000 - 3.4))
    ffmpeg("-i", str(clip("ts")), "-map", "0", "-c", "copy", *wraps, str(folder / "wraps.ts"))
    with av.open(str(folder / "wraps.ts"), options={"correct_ts_overflow": "0"}) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert max(times) - min(times) > 2**32  # it does
    made = Production(folder / "wraps.ts", tmp_path, media_settings(tmp_path, folder))
    assert made.info.notes == ()
    made.make_chunks()
    assert numbers_of(decode_video(made.whole("180p"))[0]) == list(range(120))


def test_a_name_may_hold_anything(clip: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    source = folder / "a b'c\"d%03d:[0];#?,直播\\.mp4"
    source.write_bytes(clip("mp4").read_bytes())
    made = Production(source, tmp_path, media_settings(tmp_path, folder))
    made.make_chunks()
    made.make_audio()
    assert numbers_of(decode_video(made.whole("180p"))[0]) == list(range(120))


def test_ten_bits_become_eight(produce: Produce) -> None:
    for name in ("h264-10-bit", "hevc-10-bit"):
        with av.open(str(produce(name).whole("180p"))) as container:
            assert next(container.decode(video=0)).format.name == "yuv420p"


def test_a_second_look_in_any_order_gives_the_same_bytes(
    produce: Produce, clip: Callable[[str], Path], tmp_path: Path
) -> None:
    first = produce("ts-open-gop")
    again = Production(first.source, tmp_path, media_settings(tmp_path, first.source.parent))
    assert len(again.plan.chunks) == 8
    again.make_chunks([5, 0, 7, 2, 6, 1, 4, 3])
    assert again.files() == first.files()


def test_frames_between_two_that_are_damaged_are_shown(produce: Produce) -> None:
    """Noise in the middle: before and behind it all is right, in it something stands."""
    made = produce("noise-in-ts")
    assert "recording-corrupt" in {note.code for note in made.info.notes}
    numbers = numbers_of(decode_video(made.whole("180p"))[0][:45])
    assert numbers == list(range(45))
    assert numbers_of(decode_video(made.whole("180p"))[0][90:]) == list(range(90, 120))
