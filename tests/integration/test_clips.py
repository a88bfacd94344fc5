"""The clips other tests rely on are what their table says, by PyAV alone; errors are the product's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from control.errors import InputError
from tests.clips import CLIPS, Clip
from tests.frame_numbers import read_frame_number
from tests.production import look_at, media_settings

GOOD = [name for name, clip in CLIPS.items() if clip.error is None]
CUT = [name for name in GOOD if name.startswith("truncated")]
WHOLE = [name for name in GOOD if name not in CUT and (CLIPS[name].numbered or CLIPS[name].variable)]
BROKEN_CLOCK = [name for name in GOOD if name.startswith(("jump", "hole", "restart"))]

Clips = Callable[[str], Path]
# They look at no line of the product: worth doing where ffmpeg or a clip is another.
of_the_tests = pytest.mark.slow


@dataclass
class Seen:
    """What decoding a whole clip shows, in the order it comes."""

    times: list[Fraction] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    keys: list[Fraction] = field(default_factory=list)
    interlaced: int = 0
    first: VideoFrame | None = None


def programme(container: InputContainer) -> VideoStream:
    return next(each for each in container.streams.video if not each.disposition & Disposition.attached_pic)


def upright(frame: VideoFrame) -> np.ndarray:
    grey: np.ndarray = np.rot90(frame.to_ndarray(format="gray"), round(frame.rotation / 90))
    return grey


@cache
def see(path: Path) -> Seen:
    seen = Seen()
    with av.open(str(path)) as container:
        stream = programme(container)
        tick = stream.time_base
        assert tick is not None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                assert frame.pts is not None
                seen.first = seen.first or frame
                seen.times.append(frame.pts * tick)
                seen.interlaced += frame.interlaced_frame
                if frame.key_frame:
                    seen.keys.append(seen.times[-1])
                try:
                    seen.numbers.append(read_frame_number(upright(frame)))
                except ValueError:
                    seen.numbers.append(None)
    return seen


@of_the_tests
@pytest.mark.parametrize("name", GOOD)
def test_streams_are_as_said(clip: Clips, name: str) -> None:
    said = CLIPS[name]
    with av.open(str(clip(name))) as container:
        stream = programme(container)
        assert stream.codec_context.codec.canonical_name == said.codec
        sounds = container.streams.audio
        found = [
            (each.codec_context.codec.canonical_name, each.codec_context.channels, each.codec_context.sample_rate)
            for each in sounds
        ]
        assert found == [(each.codec, each.channels, each.sample_rate) for each in said.sounds]
        assert [each.language if each.language != "und" else None for each in sounds] == [
            each.language for each in said.sounds
        ]


@of_the_tests
@pytest.mark.parametrize("name", WHOLE)
def test_frames_are_as_said(clip: Clips, name: str) -> None:
    said = CLIPS[name]
    seen = see(clip(name))
    assert seen.first is not None
    picture = upright(seen.first)
    wide = said.sample_aspect if said.rotation not in (90, 270) else 1 / said.sample_aspect
    assert (round(picture.shape[1] * wide), picture.shape[0]) == (said.width, said.height)
    assert -seen.first.rotation % 360 == said.rotation
    assert max(each.bits for each in seen.first.format.components) == said.bit_depth
    assert (int(seen.first.color_trc) in (16, 18)) == said.hdr
    assert seen.interlaced == (len(seen.times) if said.interlaced else 0)
    if said.numbered:
        assert seen.numbers == list(range(said.first_number, said.first_number + len(seen.numbers)))
    if name not in BROKEN_CLOCK:
        assert_clock(said, seen)


def assert_clock(said: Clip, seen: Seen) -> None:
    times = np.array([float(time) for time in seen.times])
    steps = np.diff(times)
    assert (steps > 0).all()
    assert len(seen.keys) >= 2 or len(times) == 1
    assert np.diff([float(time) for time in seen.keys]) == pytest.approx(said.keyframe_seconds, abs=0.15)
    if said.start_seconds is not None:
        assert times[0] == pytest.approx(said.start_seconds, abs=0.001)
    if said.variable:
        # No rate has all frames on its grid.
        assert steps.max() > 3 * steps.min()
        assert not np.allclose(times * 30, np.rint(times * 30), atol=0.1)
        assert not np.allclose(np.diff(steps[:40]), 0, atol=0.004)
        return
    assert said.frames is not None
    assert said.frame_rate is not None
    assert len(times) == said.frames
    # A millisecond is as fine as FLV and Matroska can tell.
    assert times - times[0] == pytest.approx(np.arange(said.frames) / float(said.frame_rate), abs=0.0011)


@pytest.mark.parametrize("name", BROKEN_CLOCK)
def test_the_clock_breaks_once(clip: Clips, name: str) -> None:
    steps = np.diff([float(time) for time in see(clip(name)).times])
    odd = [(place, step) for place, step in enumerate(steps) if not 0 < step < 0.05]
    gap = {"jump": 60.0, "hole": 3.0, "restart": -3.0}[name.split("-")[0]]
    assert len(odd) == 1
    assert odd[0][0] == 89
    assert odd[0][1] == pytest.approx(gap + 1 / 30, abs=0.002)


@of_the_tests
@pytest.mark.parametrize("name", [name for name in GOOD if not CLIPS[name].numbered])
def test_numbers_that_cannot_be_counted_on_do_not_count(clip: Clips, name: str) -> None:
    numbers = see(clip(name)).numbers
    assert numbers != list(range(CLIPS[name].first_number, CLIPS[name].first_number + len(numbers)))


def test_a_rate_near_30_is_30_in_the_mean_alone(clip: Clips) -> None:
    with av.open(str(clip("vfr-near-30"))) as container:
        stream = programme(container)
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(30, abs=0.1)
    steps = np.diff([float(time) for time in see(clip("vfr-near-30")).times])
    assert (np.abs(steps - 1 / 30) > 0.003).all()


def test_the_picture_grows_once(clip: Clips) -> None:
    with av.open(str(clip("size-change-ts"))) as container:
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert sizes == [(320, 180)] * 120 + [(640, 360)] * 120


@pytest.mark.parametrize("name", CUT)
def test_cut_off_clips_begin_well_and_break_off(clip: Clips, name: str) -> None:
    seen = see(clip(name))
    assert 60 <= len(seen.numbers) < 110
    assert seen.numbers == list(range(len(seen.numbers)))


def test_noise_spoils_some_frames_in_the_middle_alone(clip: Clips) -> None:
    numbers = see(clip("noise-in-ts")).numbers
    assert numbers[:45] == list(range(45))
    assert numbers[-30:] == list(range(90, 120))
    assert numbers != list(range(120))


def test_open_gop_has_pictures_that_need_the_gop_before(clip: Clips) -> None:
    with av.open(str(clip("ts-open-gop"))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    leading = 0
    key = packets[0]
    for packet in packets:
        if packet.is_keyframe:
            key = packet
        elif packet.pts is not None and key.pts is not None and packet.pts < key.pts:
            leading += 1
    assert leading >= 6
    # An IDR picture is NAL type 5; only the first keyframe has one.
    idr = [number for number, packet in enumerate(packets) if b"\x00\x00\x01\x65" in bytes(packet)]
    assert idr == [0]


def test_b_frames_come_out_of_order(clip: Clips) -> None:
    for name in ("b-frames-mp4", "b-frames-flv", "b-frames-mkv"):
        with av.open(str(clip(name))) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
        assert times != sorted(times), name


def test_fields_are_two_moments(clip: Clips) -> None:
    smooth = combing(clip("fps-25"))
    assert combing(clip("interlaced")) > 2 * smooth
    assert combing(clip("interlaced-mpeg2")) > 2 * smooth


def combing(path: Path) -> float:
    """How much lines stand out from both their neighbours, to the same side, where something moves."""
    with av.open(str(path)) as container:
        stack = [
            frame.to_ndarray(format="gray") for _, frame in zip(range(20), container.decode(video=0), strict=False)
        ]
    pictures = np.stack(stack).astype(float)[:, :130]
    up = pictures[1:, 1:-1] - pictures[1:, :-2]
    down = pictures[1:, 1:-1] - pictures[1:, 2:]
    moving = np.abs(np.diff(pictures, axis=0))[:, 1:-1] > 20
    return float(np.clip(up * down, 0, None)[moving].mean())


def test_a_cover_is_a_second_video_stream(clip: Clips) -> None:
    with av.open(str(clip("cover"))) as container:
        covers = [each for each in container.streams.video if each.disposition & Disposition.attached_pic]
        assert [(each.width, each.height) for each in covers] == [(640, 640)]
        assert programme(container).width == 320


def test_fragmented_has_no_sample_in_its_moov(clip: Clips) -> None:
    data = clip("fragmented").read_bytes()
    assert data.count(b"moof") == 2
    assert b"mvex" in data
    assert clip("mp4").read_bytes().count(b"moof") == 0


@pytest.mark.parametrize(
    "name", [name for name, clip in CLIPS.items() if any(sound.seconds or sound.start_seconds for sound in clip.sounds)]
)
def test_sound_lies_beside_the_picture_as_said(clip: Clips, name: str) -> None:
    said = CLIPS[name].sounds[0]
    with av.open(str(clip(name))) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        frames = list(container.decode(audio))
        assert frames[0].pts is not None
        assert audio.time_base is not None
        assert video.time_base is not None
        start = frames[0].pts * audio.time_base
        length = sum(frame.samples for frame in frames) / audio.codec_context.sample_rate
        origin = (video.start_time or 0) * video.time_base
    # AAC adds 1,024 samples before, and fills up its last frame.
    assert float(start - origin) == pytest.approx(said.start_seconds, abs=0.05)
    assert length == pytest.approx(said.seconds, abs=0.07)


def test_silence_is_silent_and_a_tone_is_not(clip: Clips) -> None:
    def loudest(name: str) -> float:
        with av.open(str(clip(name))) as container:
            return max(float(np.abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0))

    assert loudest("silence") == 0
    assert loudest("mp4") > 0.05


def test_edited_pictures_are_what_they_say(clip: Clips) -> None:
    def brightness(name: str) -> list[float]:
        with av.open(str(clip(name))) as container:
            return [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]

    assert max(brightness("all-black")) < 20
    intro = brightness("black-intro")
    assert max(intro[:120]) < 20
    assert min(intro[120:]) > 60
    rising = brightness("fade-in")
    assert rising[0] < 20
    assert rising[59] < 0.8 * rising[150]
    dissolve = see(clip("dissolve")).numbers
    assert dissolve[:115] == list(range(115))
    assert dissolve[185:] == list(range(512 + 65, 512 + 180))
    assert None in dissolve[135:165]


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if clip.error == "recording-not-media"])
def test_what_is_not_media_does_not_open(clip: Clips, name: str) -> None:
    with pytest.raises(FFmpegError):
        av.open(str(clip(name)))


def test_sound_only_has_no_video(clip: Clips) -> None:
    with av.open(str(clip("sound-only"))) as container:
        assert not container.streams.video
        assert len(container.streams.audio) == 1


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if clip.error])
def test_what_is_refused_is_refused_with_the_code_said(clip: Clips, name: str, tmp_path: Path) -> None:
    source = clip(name)
    with pytest.raises(InputError) as refused:
        look_at(source, tmp_path, media_settings(tmp_path, source.parent))
    assert refused.value.code == CLIPS[name].error


def test_an_empty_file_is_empty_and_disguises_are_texts(clip: Clips) -> None:
    assert clip("empty").stat().st_size == 0
    assert clip("playlist-disguised").read_text().startswith("#EXTM3U")
    assert "<MPD " in clip("dash-disguised").read_text()
    assert clip("concat-disguised").read_text().startswith("ffconcat version 1.0")
