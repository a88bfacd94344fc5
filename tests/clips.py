"""Recordings of every kind the product takes or refuses, made by ffmpeg when a test first asks for one.

`CLIPS` says what is in each; `make` makes it. Every frame carries its number (see `tests.frame_numbers`), so that a
test can say which frame of the source it sees. 320×180, 4 s at 30 fps, a keyframe every 2 s and one AAC stereo tone,
where the table says nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from tests.clip_builders import (
    AAC,
    Builder,
    Recipe,
    Source,
    covered,
    cut,
    damaged,
    h264,
    headless,
    hevc,
    joined,
    noise,
    sine,
    sound_only,
    spliced,
    turned,
    written,
)
from tests.frame_numbers import paint_numbers

NTSC: Final = Fraction(30000, 1001)
FRAGMENTED: Final = "frag_keyframe+empty_moov+default_base_moof+delay_moov"
VP9: Final = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "500k", "-g", "60")
OPUS: Final = ("-c:a", "libopus", "-ac", "2", "-b:a", "64k")


@dataclass(frozen=True)
class Sound:
    """One audio track."""

    codec: str = "aac"
    channels: int = 2
    sample_rate: int = 48000
    language: str | None = None
    start_seconds: float = 0.0
    """From the first frame of the video."""
    seconds: float | None = None
    """None is as long as the video."""


@dataclass(frozen=True)
class Clip:
    """A recording and what is true of it."""

    name: str
    suffix: str
    build: Builder
    note: str = ""
    codec: str | None = "h264"
    frames: int | None = 120
    """Frames of its replay on a constant grid: holes filled, breaks of 10 s and more closed up. None where the
    source has no such number (variable rate, cut off)."""
    frame_rate: Fraction | None = Fraction(30)
    """None where more than one would be right."""
    width: int = 320
    """Display size: upright, square pixels."""
    height: int = 180
    first_number: int = 0
    """Painted on the first frame that can be decoded."""
    numbered: bool = True
    """Every frame that can be decoded shows its number, one more than the frame before."""
    sounds: tuple[Sound, ...] = (Sound(),)
    start_seconds: float | None = None
    """Where the container's clock stands at the first frame; None where it is of no interest."""
    rotation: int = 0
    """Clockwise degrees the decoded picture must be turned by."""
    sample_aspect: Fraction = Fraction(1)
    bit_depth: int = 8
    interlaced: bool = False
    hdr: bool = False
    variable: bool = False
    keyframe_seconds: float = 2.0
    error: str | None = None
    """Code of the error that refuses it (`control.errors`)."""

    @property
    def file(self) -> str:
        return f"{self.name}.{self.suffix}"


def make(name: str, folder: Path) -> Path:
    """The clip's file in `folder`, made unless it is there already. Raises KeyError for an unknown name."""
    clip = CLIPS[name]
    path = folder / clip.file
    if not path.exists():
        draft = folder / f"draft-{clip.file}"
        clip.build(draft)
        draft.rename(path)
    return path


def _clip(name: str, suffix: str, source: Source | None = None, *options: str, **facts: Any) -> Clip:
    """A clip of one command; what the source says is not said again."""
    source = source or Source()
    build = Recipe(source, options or (*h264(), *AAC))
    width, height = source.size
    known: dict[str, Any] = {"frames": source.frames, "frame_rate": source.rate, "width": width, "height": height}
    if source.sounds == ():
        known["sounds"] = ()
    return Clip(name, suffix, **({"build": build} | known | {"first_number": source.first} | facts))


def _bad(name: str, suffix: str, build: Builder, error: str, note: str = "") -> Clip:
    return Clip(
        name, suffix, build, note, codec=None, frames=None, frame_rate=None, numbered=False, sounds=(), error=error
    )  # fmt: skip


def _containers_and_codecs() -> Iterable[Clip]:
    av1 = ("-c:v", "libsvtav1", "-preset", "8", "-crf", "20", "-g", "60", "-svtav1-params", "scd=0")
    mpeg2 = ("-c:v", "mpeg2video", "-b:v", "1500k", "-g", "60", "-sc_threshold", "1000000000")
    open_gop = "open-gop=1:keyint=60:min-keyint=60:scenecut=0:bframes=3:b-adapt=0:bframe-bias=100"
    yield _clip("mp4", "mp4")
    yield _clip("mov", "mov")
    yield _clip("mkv", "mkv")
    yield _clip("flv", "flv")
    yield _clip("ts", "ts", note="closed GOPs")
    yield _clip(
        "ts-open-gop",
        "ts",
        Source(frames=240),
        *("-c:v", "libx264", "-preset", "veryfast", "-x264-params", open_gop, *AAC),
        note="B-frames before a keyframe refer to the GOP before; only the first keyframe is an IDR",
    )
    two_b = (
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-bf",
        "2",
        "-g",
        "60",
        "-keyint_min",
        "60",
        "-sc_threshold",
        "0",
    )
    for suffix in ("mp4", "flv", "mkv"):
        yield _clip(f"b-frames-{suffix}", suffix, None, *two_b, *AAC)
    yield _clip("fragmented", "mp4", None, *h264(), *AAC, "-movflags", FRAGMENTED)
    yield _clip("webm-vp9", "webm", None, *VP9, *OPUS, codec="vp9", sounds=(Sound("opus"),))
    yield _clip("hevc", "mp4", None, *hevc(), *AAC, codec="hevc")
    yield _clip("hevc-ts", "ts", None, *hevc(), *AAC, codec="hevc")
    yield _clip("av1", "mp4", None, *av1, *AAC, codec="av1")
    yield _clip("webm-av1", "webm", None, *av1, *OPUS, codec="av1", sounds=(Sound("opus"),))
    yield _clip("mpeg2-ts", "ts", None, *mpeg2, *AAC, codec="mpeg2video")
    yield _clip("mpeg2-ps", "mpg", None, *mpeg2, "-c:a", "mp2", "-ac", "2", codec="mpeg2video", sounds=(Sound("mp2"),))


def _rates() -> Iterable[Clip]:
    film, double = Fraction(24000, 1001), 2 * NTSC
    for label, rate, frames in (
        ("23.976", film, 96),
        ("24", Fraction(24), 96),
        ("25", Fraction(25), 100),
        ("29.97", NTSC, 120),
        ("30", Fraction(30), 120),
        ("50", Fraction(50), 200),
        ("59.94", double, 240),
        ("60", Fraction(60), 240),
    ):
        yield _clip(f"fps-{label}", "mp4", Source(frames, rate), *h264(round(2 * rate)), *AAC)
    # Times in whole milliseconds: the rate must be found all the same.
    yield _clip("flv-29.97", "flv", Source(120, NTSC))
    yield _clip("flv-60", "flv", Source(240, Fraction(60)), *h264(120), *AAC)
    yield _clip("mkv-23.976", "mkv", Source(96, film), *h264(48), *AAC)
    yield _clip("mkv-59.94", "mkv", Source(240, double), *h264(120), *AAC)
    # 30 fps that wavers, loses frames here and there, and becomes 15 fps after two seconds.
    wavering = (
        r"select='if(lt(n\,60)\,mod(n\,9)\,not(mod(n\,2)))',settb=1/90000,setpts='PTS+0.3*sin(1.7*N)/30/TB+0.01/TB'"
    )
    exact = ("-fps_mode", "passthrough", "-enc_time_base", "1:90000")
    for suffix in ("mp4", "mkv"):
        yield _clip(
            f"vfr-{suffix}", suffix, Source(after=wavering), *h264(), *AAC, *exact, frames=None, variable=True,
            first_number=1, numbered=False, keyframe_seconds=2.3,
        )  # fmt: skip
    # No frame is lost, each is late by up to 0.8 of a frame: its mean says 30, its clock does not.
    late = r"settb=1/90000,setpts='PTS+0.8*mod(N*7919\,13)/13/30/TB'"
    yield _clip(
        "vfr-near-30", "mp4", Source(after=late), *h264(), *AAC, *exact, frames=None, frame_rate=None, variable=True
    )  # fmt: skip


def _pictures() -> Iterable[Clip]:
    yield _clip("no-audio", "mp4", Source(sounds=()), *h264())
    yield _clip("eight-seconds", "mp4", Source(frames=240), note="four keyframes")
    yield _clip(
        "h264-10-bit", "mp4", None, *h264(60, "-profile:v", "high10", "-pix_fmt", "yuv420p10le"), *AAC, bit_depth=10
    )
    ten = ("-pix_fmt", "yuv420p10le", "-profile:v", "main10")
    yield _clip("hevc-10-bit", "mp4", None, *hevc(60, *ten), *AAC, codec="hevc", bit_depth=10)
    for label, transfer in (("pq", "smpte2084"), ("hlg", "arib-std-b67")):
        # SDR's white at 203 nits, as ITU-R BT.2408 puts it.
        light = (
            f"zscale=tin=bt709:pin=bt709:min=bt709:rin=limited:t={transfer}:p=bt2020:m=2020_ncl:r=limited:npl=203,"
            "format=yuv420p10le"
        )
        tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-tag:v", "hvc1")
        options = (*hevc(60, *ten, *tags), *AAC)
        yield _clip(
            f"hdr-{label}", "mp4", Source(after=light), *options, codec="hevc", bit_depth=10, hdr=True
        )  # fmt: skip
    # Two moments in one frame: what moves has combs. The number belongs to the frame, not to the field.
    fields = Source(
        100, Fraction(25), before="interlace=scan=tff:lowpass=off", source_rate=Fraction(50), after="setfield=tff"
    )
    woven = ("-flags", "+ilme+ildct")
    yield _clip(
        "interlaced", "mp4", fields, *h264(50, *woven, "-x264-params", "tff=1"), *AAC, interlaced=True
    )  # fmt: skip
    mpeg2 = ("-c:v", "mpeg2video", "-b:v", "3M", "-g", "12", *woven)
    yield _clip(
        "interlaced-mpeg2", "ts", fields, *mpeg2, *AAC, codec="mpeg2video", interlaced=True, keyframe_seconds=0.48
    )  # fmt: skip
    for rotation, stored, size in (
        (90, "transpose=cclock", (180, 320)),
        (180, "hflip,vflip", (320, 180)),
        (270, "transpose=clock", (180, 320)),
    ):
        source = Source(size=size)
        build = turned(stored, -rotation, source)
        yield _clip(f"rotated-{rotation}", "mp4", source, build=build, rotation=rotation)
    yield _clip("portrait", "mp4", Source(size=(180, 320)))
    # testsrc2 itself makes even sizes alone.
    odd = Source(size=(321, 181), before="scale=321:181,setsar=1")
    yield _clip("odd-size-vp9", "webm", odd, *VP9, *OPUS, codec="vp9", sounds=(Sound("opus"),))
    yield _clip("odd-size-h264", "mp4", odd, *h264(60, "-pix_fmt", "yuv444p"), *AAC)
    for suffix in ("mp4", "ts"):
        yield _clip(
            f"anamorphic-{suffix}", suffix, Source(size=(240, 180), after="setsar=4/3"), width=320,
            sample_aspect=Fraction(4, 3),
        )  # fmt: skip
    yield _clip("one-frame", "mp4", Source(frames=1, sounds=()), *h264())
    yield _clip("one-frame-1080p", "mp4", Source(frames=1, size=(1920, 1080), sounds=()), *h264())
    sparse = Source(625, Fraction(25), size=(160, 90))
    yield _clip("keyframes-10s", "mp4", sparse, *h264(250), *AAC, keyframe_seconds=10)
    yield _clip("cover", "mp4", build=covered, note="a cover picture larger than the programme")


def _edited() -> Iterable[Clip]:
    """Pictures that a poster must not be made of, before and between some that it may."""
    numbered = f"testsrc2=size=320x180:rate=30:duration=4,{paint_numbers()}"
    black = "color=black:size=320x180:rate=30"
    silent: dict[str, Any] = {"sounds": (), "numbered": False}
    gop_1s = ("-g", "30", "-keyint_min", "30", "-sc_threshold", "0")
    often = ("-c:v", "libx264", "-preset", "ultrafast", *gop_1s, "-pix_fmt", "yuv420p")
    yield Clip(
        "black-intro", "mp4", spliced(f"{black}:duration=4", numbered, options=often), "4 s of black, then numbers",
        frames=240, keyframe_seconds=1, **silent,
    )  # fmt: skip
    yield Clip(
        "all-black", "mp4", spliced(f"{black}:duration=4", options=often), frames=120, keyframe_seconds=1, **silent
    )
    other = f"testsrc=size=320x180:rate=30:duration=6,format=yuv420p,{paint_numbers(512)}"
    first = f"testsrc2=size=320x180:rate=30:duration=6,{paint_numbers()}"
    yield Clip(
        "dissolve", "mp4",
        spliced(first, other, joint="xfade=transition=fade:duration=2:offset=4", options=often),
        "two pictures; from 4 to 6 s one becomes the other, whose numbers start at 512", frames=300,
        keyframe_seconds=1, **silent,
    )  # fmt: skip
    yield Clip(
        "fade-in", "mp4", spliced(f"{first},fade=t=in:d=4", options=often),
        "brightens from black for 4 s, 2 s remain", frames=180, keyframe_seconds=1, **silent,
    )  # fmt: skip
    yield Clip(
        "blurred-start", "mp4",
        spliced(f"{first},gblur=sigma=12:enable=lt(t\\,3.5)", options=often),
        "out of focus for 3.5 s", frames=180, keyframe_seconds=1, sounds=(),
    )  # fmt: skip


def _clocks() -> Iterable[Clip]:
    yield _clip("late-start-ts", "ts", None, *h264(), *AAC, "-output_ts_offset", "1400", start_seconds=1401.4)
    for suffix in ("mp4", "mkv"):
        yield _clip(f"late-start-{suffix}", suffix, None, *h264(), *AAC, "-output_ts_offset", "10", start_seconds=10.0)
    part = (Recipe(Source(frames=90), (*h264(), *AAC)), Recipe(Source(frames=90, first=90), (*h264(), *AAC)))
    for suffix in ("ts", "flv"):
        for label, offset, frames, note in (
            ("jump", 63.0, 180, "the clock jumps 60 s ahead after 3 s; the numbers go on"),
            ("hole", 6.0, 270, "3 s are missing after 3 s; the numbers go on"),
            ("restart", 0.0, 180, "the clock starts anew after 3 s; the numbers go on"),
        ):
            build = joined(*part, offset_seconds=offset, suffix=suffix)
            yield Clip(f"{label}-{suffix}", suffix, build, note, frames=frames)
    small, large = Source(), Source(first=120, size=(640, 360))
    grown = joined(
        Recipe(small, (*h264(), *AAC)), Recipe(large, (*h264(), *AAC)), offset_seconds=4.0, suffix="ts"
    )  # fmt: skip
    yield Clip("size-change-ts", "ts", grown, "640×360 from 4 s on; clock and numbers go on", frames=240)


def _sounds() -> Iterable[Clip]:
    late = ("-filter:a", "asetpts=PTS+1/TB")
    yield _clip(
        "audio-late",
        "mp4",
        Source(sounds=(sine(3),)),
        *h264(),
        *AAC,
        *late,
        sounds=(Sound(start_seconds=1, seconds=3),),
    )
    yield _clip(
        "audio-late-ts",
        "ts",
        Source(sounds=(sine(3),)),
        *h264(),
        *AAC,
        *late,
        sounds=(Sound(start_seconds=1, seconds=3),),
    )
    yield _clip("audio-short", "mp4", Source(sounds=(sine(2),)), sounds=(Sound(seconds=2),))
    yield _clip("audio-long", "mp4", Source(sounds=(sine(6),)), sounds=(Sound(seconds=6),))
    yield _clip("mono", "mp4", None, *h264(), "-c:a", "aac", "-ac", "1", sounds=(Sound(channels=1),))
    yield _clip(
        "surround", "mp4", None, *h264(), "-af", "pan=5.1|FL=c0|FR=c0|FC=c0|LFE=c0|BL=c0|BR=c0", "-c:a", "aac",
        sounds=(Sound(channels=6),),
    )  # fmt: skip
    languages = ("-metadata:s:a:0", "language=zho", "-metadata:s:a:1", "language=eng")
    two = Source(sounds=(sine(4), sine(4, 880)))
    tracks = (Sound(language="zho"), Sound(language="eng"))
    for suffix in ("mp4", "mkv", "ts"):
        yield _clip(f"two-languages-{suffix}", suffix, two, *h264(), *AAC, *languages, sounds=tracks)
    yield _clip("silence", "mp4", Source(sounds=("anullsrc=r=48000:cl=stereo:d=4",)))
    yield _clip("aac-44100", "mp4", Source(sounds=(sine(4, sample_rate=44100),)), sounds=(Sound(sample_rate=44100),))
    for suffix, codec, encoder, rate in (
        ("mkv", "mp3", "libmp3lame", 48000),
        ("flv", "mp3", "libmp3lame", 44100),
        ("mkv", "opus", "libopus", 48000),
        ("ts", "ac3", "ac3", 48000),
    ):
        yield _clip(
            f"{codec}-{suffix}", suffix, None, *h264(), "-c:a", encoder, "-ac", "2", "-ar", str(rate),
            sounds=(Sound(codec, sample_rate=rate),),
        )  # fmt: skip


def _damaged() -> Iterable[Clip]:
    plain = Recipe(options=(*h264(30), *AAC))
    fragmented = Recipe(options=(*h264(30), *AAC, "-movflags", FRAGMENTED))
    for suffix in ("ts", "flv", "mkv"):
        yield Clip(f"truncated-{suffix}", suffix, cut(plain), "60 % of its bytes", frames=None, keyframe_seconds=1)
    yield Clip("truncated-fragmented", "mp4", cut(fragmented), "60 % of its bytes", frames=None, keyframe_seconds=1)
    yield Clip(
        "noise-in-ts", "ts", damaged(plain), "12 packets in the middle are noise", numbered=False, keyframe_seconds=1
    )  # fmt: skip
    yield Clip(
        "headless-ts", "ts", headless(plain, 10), "starts 20 frames before a keyframe", frames=90, first_number=30,
        keyframe_seconds=1,
    )  # fmt: skip


def _refused() -> Iterable[Clip]:
    whole = Recipe(options=(*h264(), *AAC))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nhttp://127.0.0.1/segment.ts\n#EXT-X-ENDLIST\n"
    manifest = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1"><BaseURL>http://127.0.0.1/video.mp4</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>\n"
    )
    yield _bad("no-moov", "mp4", cut(whole), "recording-not-media", "cut off before its index was written")
    yield _bad("noise", "mp4", noise(), "recording-not-media")
    yield _bad("empty", "mp4", written(b""), "recording-empty")
    yield _bad("text", "mp4", written("Nothing to be seen here.\n" * 40), "recording-not-media")
    yield _bad("sound-only", "m4a", sound_only, "recording-without-video")
    yield _bad("playlist-disguised", "mp4", written(playlist), "recording-refused")
    yield _bad("dash-disguised", "mp4", written(manifest), "recording-refused")
    yield _bad("concat-disguised", "mp4", written("ffconcat version 1.0\nfile /etc/passwd\n"), "recording-refused")


CLIPS: Final[dict[str, Clip]] = {
    clip.name: clip
    for group in (_containers_and_codecs, _rates, _pictures, _edited, _clocks, _sounds, _damaged, _refused)
    for clip in group()
}
