"""The sound of a replay: no seam at segment borders, in time with the picture, all of it there."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from control.bus.messages import AudioResult
from control.bus.work import Work
from control.settings import MediaSettings
from media_worker.audio_command import loudness_command
from media_worker.ffmpeg import ffmpeg_path
from media_worker.runner import run
from tests.clip_builders import AAC, Recipe, Source, ffmpeg, h264, joined, sine
from tests.production import Production, decode_audio, media_settings

HZ = 440
SECONDS = 13  # three segments
OPUS = ("-c:a", "libopus", "-ac", "2", "-b:a", "96k")
AC3 = ("-c:a", "ac3", "-ac", "2", "-b:a", "192k")
MP3 = ("-c:a", "libmp3lame", "-ac", "2", "-ar", "44100")
AAC_44100 = (*AAC, "-ar", "44100")
BEEPS = (3.5, 9.25)

Sounds = NDArray[np.float32]
Produce = Callable[..., Production]


@pytest.fixture
def produce(tmp_path: Path) -> Produce:
    """A recording (a path) taken as far as its plan."""

    def production(source: Path, **changes: Any) -> Production:
        return Production(source, tmp_path, media_settings(tmp_path, source.parent, **changes))

    return production


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A recording of small pictures and the given sound (a lavfi source), made once."""
    folder = tmp_path_factory.mktemp("sounds")

    def build(sound: str, suffix: str, options: tuple[str, ...], seconds: int = SECONDS) -> Path:
        name = hashlib.sha256(repr((sound, options, seconds)).encode()).hexdigest()[:12]
        path = folder / f"{name}.{suffix}"
        if not path.exists():
            source = Source(frames=seconds * 30, size=(160, 90), sounds=(sound,))
            Recipe(source, (*h264(), *options))(path)
        return path

    return build


def beeps(seconds: int = SECONDS) -> str:
    heard = "+".join(rf"gte(t\,{at})*lt(t\,{at + 0.25})" for at in BEEPS)
    return f"aevalsrc=0.4*sin(2*PI*1000*t)*({heard}):d={seconds}:s=48000"


def onsets(sound: Sounds, rate: int) -> list[float]:
    """Where it becomes loud after a tenth of a second of silence, in seconds."""
    loud = np.flatnonzero(np.abs(sound[0]) > 0.04)
    return [float(at / rate) for at, before in zip(loud, [-rate, *loud[:-1]], strict=True) if at - before > rate / 10]


def ends(sound: Sounds, rate: int) -> list[float]:
    """Where a tenth of a second of silence begins, in seconds."""
    return [sound.shape[1] / rate - at for at in reversed(onsets(sound[:, ::-1], rate))]


def off_the_sine(sound: Sounds, rate: int, hz: int = HZ) -> tuple[float, float]:
    """Amplitude of the one sine of `hz` that fits all of channel 0 best; what remains of it, at most, as a share."""
    inner = slice(rate // 5, sound.shape[1] - rate // 5)
    angle = 2 * np.pi * hz * np.arange(sound.shape[1])[inner] / rate
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    found, *_ = np.linalg.lstsq(basis, sound[0][inner], rcond=None)
    rest = sound[0][inner] - basis @ found
    amplitude = float(np.hypot(*found))
    return amplitude, float(np.abs(rest).max()) / amplitude


def heard_of(production: Production, number: int = 0) -> tuple[AudioResult, Sounds, int]:
    """The result, what a player hears, and its sample rate; and it lasts as long as the picture."""
    result = production.make_audio(number)
    track, plan = result.track, production.plan
    length = Fraction(sum(segment.ticks for segment in track.segments), track.timescale)
    assert abs(length - plan.duration_seconds) < Fraction(1, track.timescale)
    border = plan.segment_frames / plan.frame_rate
    assert len(track.segments) == -(-plan.duration_seconds // border)
    end = Fraction(0)
    for number_, segment in enumerate(track.segments[:-1], 1):
        end += Fraction(segment.ticks, track.timescale)
        assert abs(end - number_ * border) <= Fraction(1024, track.timescale)
    sound, rate = decode_audio(production.whole(plan.audio[number].name))
    assert sound.shape[0] == 2
    assert sound.shape[1] / rate == pytest.approx(float(plan.duration_seconds), abs=0.025)
    return result, sound, rate


@pytest.mark.parametrize(
    ("suffix", "options", "mode"),
    [
        ("mp4", AAC, "copy"),
        ("ts", AAC, "copy"),
        ("flv", AAC_44100, "copy"),
        ("mkv", AAC_44100, "copy"),
        ("mkv", OPUS, "encode"),
        ("ts", AC3, "encode"),
        ("flv", MP3, "encode"),
    ],
)
def test_a_tone_has_no_seam(
    suffix: str, options: tuple[str, ...], mode: str, record: Callable[..., Path], produce: Produce
) -> None:
    """One sine of one phase fits all of it: a click, a gap or a lost sample at any border would stand out."""
    result, sound, rate = heard_of(produce(record(sine(SECONDS, HZ), suffix, options)))
    assert result.mode == mode
    amplitude, rest = off_the_sine(sound, rate)
    assert 0.07 < amplitude < 0.13
    assert rest < 0.1
    # From its very beginning: the packet that primes the decoder is not taken for sound.
    assert np.abs(sound[0][: rate // 100]).max() > amplitude / 2


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", AAC), ("ts", AAC), ("flv", AAC_44100), ("mkv", AAC_44100),
        ("mkv", OPUS), ("ts", AC3), ("flv", MP3), ("mp4", AC3),
    ],
)  # fmt: skip
def test_beeps_are_where_they_were(
    suffix: str, options: tuple[str, ...], record: Callable[..., Path], produce: Produce
) -> None:
    _, sound, rate = heard_of(produce(record(beeps(), suffix, options)))
    assert onsets(sound, rate) == pytest.approx(BEEPS, abs=0.002)


def test_copied_packets_are_those_of_the_recording(record: Callable[..., Path], produce: Produce) -> None:
    for suffix, header in (("mp4", 0), ("ts", 7)):  # MPEG-TS carries each AAC packet with 7 bytes of ADTS
        made = produce(record(sine(SECONDS, HZ), suffix, AAC))
        assert made.plan.audio[0].mode == "copy"
        made.make_audio()
        ours = packets(made.whole("audio"))
        theirs = packets(made.source, header)
        start = theirs.index(ours[0])
        assert start <= 1
        assert ours == theirs[start : start + len(ours)]
        assert len(ours) >= SECONDS * 48000 / 1024
        for path in made.made.glob("audio/*"):
            path.unlink()


def packets(path: Path, header: int = 0) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(bytes(packet)[header:]).hexdigest() for packet in container.demux(audio=0) if packet.size
        ]


@pytest.mark.parametrize("name", ["audio-late", "audio-late-ts"])
def test_sound_that_comes_late_comes_late(name: str, clip: Callable[[str], Path], produce: Produce) -> None:
    result, sound, rate = heard_of(produce(clip(name)))
    assert result.mode == "encode"
    assert onsets(sound, rate) == pytest.approx([1.0], abs=0.01)
    assert np.abs(sound[:, : int(0.98 * rate)]).max() < 0.001


@pytest.mark.parametrize(
    ("suffix", "options", "mode"), [("mp4", AAC, "copy"), ("ts", AAC, "copy"), ("mkv", OPUS, "encode")]
)
def test_sound_before_the_first_picture_is_left_out(
    suffix: str, options: tuple[str, ...], mode: str, tmp_path: Path, produce: Produce
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    source = Source(frames=390, size=(160, 90), sounds=(beeps(15),))
    offset = ("-bsf:v", "setts=ts=TS+1.2/TB")
    Recipe(source, (*h264(), *options, *offset))(folder / f"early.{suffix}")
    result, sound, rate = heard_of(produce(folder / f"early.{suffix}"))
    assert result.mode == mode
    assert onsets(sound, rate) == pytest.approx([at - 1.2 for at in BEEPS], abs=0.011)  # half a packet, where copied


def test_sound_that_ends_early_is_followed_by_silence(clip: Callable[[str], Path], produce: Produce) -> None:
    _, sound, rate = heard_of(produce(clip("audio-short")))
    assert ends(sound, rate) == pytest.approx([2.0], abs=0.01)


def test_sound_that_goes_on_is_cut_with_the_picture(clip: Callable[[str], Path], produce: Produce) -> None:
    made = produce(clip("audio-long"))
    assert [note.code for note in made.info.notes] == ["audio-cut"]
    heard_of(made)


@pytest.mark.parametrize("name", ["hole-ts", "hole-flv"])
def test_a_hole_is_silent_and_what_follows_is_in_time(name: str, clip: Callable[[str], Path], produce: Produce) -> None:
    _, sound, rate = heard_of(produce(clip(name)))
    assert onsets(sound, rate) == pytest.approx([0.0, 6.0], abs=0.01)
    assert ends(sound, rate) == pytest.approx([3.0, 9.0], abs=0.02)


@pytest.mark.parametrize("suffix", ["ts", "flv"])
@pytest.mark.parametrize("offset_seconds", [63.0, 0.0])
def test_sound_and_picture_stay_together_over_a_jump(
    suffix: str, offset_seconds: float, tmp_path: Path, produce: Produce
) -> None:
    """The first part is silent, the second is not: it must begin with the second's first picture."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    parts = [
        Recipe(Source(frames=90, first=first, size=(160, 90), sounds=(sound,)), (*h264(), *AAC))
        for first, sound in ((0, "anullsrc=r=48000:cl=stereo:d=3"), (90, sine(3, HZ)))
    ]
    joined(*parts, offset_seconds=offset_seconds, suffix=suffix)(folder / f"jump.{suffix}")
    made = produce(folder / f"jump.{suffix}")
    assert "clock-jumped" in {note.code for note in made.info.notes}
    _, sound, rate = heard_of(made)
    extra = made.plan.frames - 180  # pictures that stand while the first part's sound ends
    assert extra in (0, 1)
    assert onsets(sound, rate) == pytest.approx([3.0 + extra / 30], abs=0.025)


def test_mono_is_heard_on_both_sides(clip: Callable[[str], Path], produce: Produce) -> None:
    result, sound, rate = heard_of(produce(clip("mono")))
    assert result.mode == "encode"
    assert np.abs(sound[0] - sound[1]).max() < 0.001
    assert off_the_sine(sound, rate)[0] > 0.08


def test_surround_is_mixed_to_stereo(tmp_path: Path, produce: Produce) -> None:
    """Each of 5.1's channels but the deep one has its own tone; the left ones are left, the middle is on both sides."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    tones = "|".join(f"0.1*sin(2*PI*{hz}*t)" for hz in (400, 500, 600, 50, 800, 900))
    source = Source(frames=120, size=(160, 90), sounds=(f"aevalsrc={tones}:c=5.1:d=4:s=48000",))
    Recipe(source, (*h264(), "-c:a", "aac"))(folder / "surround.mp4")
    made = produce(folder / "surround.mp4")
    assert made.info.audio[0].channels == 6
    _, sound, rate = heard_of(made)
    left, right = ({hz: off_the_sine(side[None], rate, hz)[0] for hz in (400, 500, 600, 800, 900)} for side in sound)
    assert min(left[400], left[600], left[800]) > 0.01
    assert max(left[500], left[900]) < 0.002
    assert min(right[500], right[600], right[900]) > 0.01
    assert max(right[400], right[800]) < 0.002
    assert left[600] == pytest.approx(right[600], rel=0.05)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_each_language_is_a_rendition(suffix: str, clip: Callable[[str], Path], produce: Produce) -> None:
    made = produce(clip(f"two-languages-{suffix}"))
    renditions = [(each.name, each.language, each.default) for each in made.plan.audio]
    assert renditions == [("audio", "zho", True), ("audio-2", "eng", False)]
    for number, hz in enumerate((440, 880)):
        result, sound, rate = heard_of(made, number)
        assert result.track.name == renditions[number][0]
        assert off_the_sine(sound, rate, hz)[1] < 0.1


def test_silence_has_no_loudness(clip: Callable[[str], Path], produce: Produce) -> None:
    result, sound, _ = heard_of(produce(clip("silence")))
    assert result.loudness_lufs is None
    assert np.abs(sound).max() == 0


def test_no_sound_no_rendition(clip: Callable[[str], Path], produce: Produce) -> None:
    assert produce(clip("no-audio")).plan.audio == ()


def loudness(path: Path, track: int = 0) -> float:
    heard: list[float] = []
    command = loudness_command(ffmpeg_path(MediaSettings()), f"file:{path}", track)
    run(
        command,
        Work("x", 60),
        total_frames=1,
        total_seconds=1.0,
        on_metadata=lambda _, value: heard.append(float(value)),
    )
    return heard[-1]


@pytest.mark.parametrize(
    ("sound", "options"),
    [
        ("sine=f=1000:r=48000:d=13,volume=-12dB", AAC),
        ("sine=f=1000:r=48000:d=13,volume=-12dB", ("-c:a", "aac", "-ac", "1")),
        ("anoisesrc=d=13:c=pink:r=48000:a=0.9:seed=1,volume=6dB", OPUS),
        (f"aevalsrc={'|'.join(['0.02*sin(2*PI*700*t)'] * 6)}:c=5.1:d=13:s=48000", ("-c:a", "aac")),
    ],
    ids=["quiet", "mono", "loud", "surround"],
)
def test_loudness_is_brought_to_the_target(
    sound: str, options: tuple[str, ...], record: Callable[..., Path], produce: Produce
) -> None:
    made = produce(record(sound, "mkv", options), normalise_lufs=-16.0)
    result = made.make_audio()
    assert result.mode == "encode"
    assert result.loudness_lufs is not None
    assert abs(result.loudness_lufs + 16) > 3  # there was something to do
    assert loudness(made.whole("audio")) == pytest.approx(-16, abs=1)
    sample, _ = decode_audio(made.whole("audio"))
    assert np.abs(sample).max() < 1.0


def test_loudness_changes_nothing_but_loudness(record: Callable[..., Path], produce: Produce) -> None:
    made = produce(record(beeps(), "mp4", AAC), normalise_lufs=-20.0)
    _, sound, rate = heard_of(made)
    assert onsets(sound, rate) == pytest.approx(BEEPS, abs=0.002)


def test_loudness_is_reported_without_being_changed(record: Callable[..., Path], produce: Produce) -> None:
    for suffix, options in (("mp4", AAC), ("mkv", OPUS)):
        made = produce(record(sine(SECONDS, HZ), suffix, options))
        result = made.make_audio()
        assert result.loudness_lufs == pytest.approx(loudness(made.source, made.plan.audio[0].track_index), abs=0.2)
        for path in made.made.glob("*/*"):
            path.unlink()


def test_each_measurement_of_a_long_programme_arrives_whole(tmp_path: Path) -> None:
    """They share a pipe with ffmpeg's progress."""
    path = tmp_path / "long.m4a"
    ffmpeg("-f", "lavfi", "-i", sine(400), "-c:a", "aac", "-ac", "2", "-b:a", "32k", str(path))
    heard: list[tuple[str, str]] = []
    command = loudness_command(ffmpeg_path(MediaSettings()), f"file:{path}", 0)
    run(command, Work("x", 60), total_frames=400, total_seconds=400.0, on_metadata=lambda *pair: heard.append(pair))
    assert {key for key, _ in heard} == {"lavfi.r128.I"}
    assert len(heard) == 4000
    assert all(-100 <= float(value) <= 0 for _, value in heard)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_packets_lost_now_and_then_do_not_add_up(
    suffix: str, record: Callable[..., Path], tmp_path: Path, produce: Produce
) -> None:
    """Every fiftieth packet is missing: none of the gaps is long, but copying would close them all up."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    lossy = folder / f"lossy.{suffix}"
    drop = ("-bsf:a", r"noise=drop=eq(mod(n\,50)\,7)")
    ffmpeg("-i", str(record(beeps(), suffix, AAC)), "-map", "0", "-c", "copy", *drop, str(lossy))
    made = produce(lossy)
    assert made.info.audio[0].has_gaps
    result, sound, rate = heard_of(made)
    assert result.mode == "encode"
    assert [onsets(sound, rate)[0], onsets(sound, rate)[-1]] == pytest.approx(BEEPS, abs=0.05)


def test_damaged_sound_is_not_copied(record: Callable[..., Path], tmp_path: Path, produce: Produce) -> None:
    """A browser's decoder may stop at the first packet that does not decode."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    whole = record(beeps(), "mp4", AAC)
    data, noise = bytearray(whole.read_bytes()), random.Random(3)
    with av.open(str(whole)) as container:
        for number, packet in enumerate(container.demux(audio=0)):
            if 300 < number < 340 and packet.size and packet.pos is not None:
                data[packet.pos : packet.pos + packet.size] = noise.randbytes(packet.size)
    (folder / "damaged.mp4").write_bytes(data)
    made = produce(folder / "damaged.mp4")
    assert made.plan.audio[0].mode == "copy"
    result, sound, rate = heard_of(made)
    assert result.mode == "encode"
    found = onsets(sound, rate)
    assert [found[0], found[-1]] == pytest.approx(BEEPS, abs=0.01)


def test_sound_made_is_not_made_again(record: Callable[..., Path], produce: Produce) -> None:
    made = produce(record(beeps(), "mkv", OPUS))
    first = made.make_audio()
    files = made.files()
    again = made.make_audio()
    assert (first.reused, again.reused) == (False, True)
    assert again.model_copy(update={"reused": False}) == first
    next(made.made.glob("audio/seg-00001.m4s")).unlink()
    assert not made.make_audio().reused
    assert made.files() == files
