"""Recordings of several chunks, made by ffmpeg. Each knows what its replay must be, frame by frame.

The picture of a numbered clip carries its frame's number: 16 squares across the top, white for a 1, lowest bit left.
`read_frame_number` gets it back after any scaling and compression.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path

NTSC: Final = Fraction(30000, 1001)
_BITS: Final = 16
_BAND: Final = (0.05, 0.17)  # of the height, well inside the squares

Builder = Callable[[Path], None]


@dataclass(frozen=True)
class Clip:
    """A recipe and the facts of its replay."""

    suffix: str
    build: Builder
    frames: int | None = None
    """Frames of the replay; None where the clip does not say."""
    rate: Fraction = Fraction(30)
    size: tuple[int, int] = (320, 180)
    """Width and height as shown, before rungs are made even."""
    audio: int = 1
    numbered: bool = True
    notes: tuple[str, ...] = ()
    """Codes of the notes its replay must carry."""
    numbers: Callable[[int], int] | None = None
    """Number shown at a frame of the replay, where that is not the frame's own."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of VideoTrack that must have these values."""


def read_frame_number(grey: NDArray[Any]) -> int:
    """The number in a picture of a numbered clip (height × width, any size)."""
    height, width = grey.shape[:2]
    top, bottom = (round(height * share) for share in _BAND)
    bits = [
        grey[top:bottom, round((bit + 0.3) * width / _BITS) : round((bit + 0.7) * width / _BITS)].mean() > 128
        for bit in range(_BITS)
    ]
    return sum(1 << bit for bit, white in enumerate(bits) if white)


def make(name: str, folder: Path) -> Path:
    """The clip `name` in `folder`, made where it is not there yet."""
    clip = CLIPS[name]
    path = folder / f"{name}{clip.suffix}"
    if not path.exists():
        clip.build(path)
    return path


# --- how they are made ------------------------------------------------------------------------------


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_path(MediaSettings()), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def picture(seconds: float, rate: Fraction | int = 30, size: str = "320x180", first: int = 0) -> str:
    """A lavfi source whose frames carry their numbers, from `first` on."""
    width, height = (int(side) for side in size.split("x"))
    number = f"(N+{first})"
    squares = f"if(lt(Y,{height * 0.22:.0f}),if(mod(floor({number}/pow(2,floor(X*16/{width}))),2),235,16),lum(X,Y))"
    return f"testsrc2=size={size}:rate={rate}:duration={seconds},format=gray,geq=lum='{squares}',format=yuv420p"


def tone(seconds: float, *, hz: int = 440, rate: int = 48000) -> str:
    return f"sine=frequency={hz}:sample_rate={rate}:duration={seconds}"


X264 = ("-c:v", "libx264", "-preset", "ultrafast")
AAC = ("-c:a", "aac", "-ac", "2")


def encoded(
    seconds: float = 9,
    rate: Fraction | int = 30,
    size: str = "320x180",
    video: tuple[str, ...] = X264,
    audio: tuple[str, ...] | None = AAC,
    more: tuple[str, ...] = (),
    filters: str = "",
    sound: str = "",
    gop: int | None = None,
) -> Builder:
    """A clip in one go: `filters` behind the numbered picture, `sound` instead of the tone."""

    def build(path: Path) -> None:
        source = picture(seconds, rate, size) + (f",{filters}" if filters else "")
        inputs: tuple[str, ...] = ("-f", "lavfi", "-i", source)
        if audio is not None:
            inputs += ("-f", "lavfi", "-i", sound or tone(seconds))
        keys = ("-g", str(gop or round(2 * Fraction(rate))), "-keyint_min", "1")
        ffmpeg(*inputs, *video, *keys, *(audio or ()), *more, path)

    return build


def copied(source: str, *more: str, before: tuple[str, ...] = ()) -> Builder:
    """Another clip, its packets put into another container."""

    def build(path: Path) -> None:
        ffmpeg(*before, "-i", make(source, path.parent), "-map", "0", "-c", "copy", *more, path)

    return build


def cut(source: str, start: float = 0.0, end: float = 0.6) -> Builder:
    """The bytes of another clip from one share to another: a recording that broke off, or was joined late."""

    def build(path: Path) -> None:
        whole = make(source, path.parent).read_bytes()
        path.write_bytes(whole[int(len(whole) * start) // 188 * 188 : int(len(whole) * end)])

    return build


def joined(*sources: tuple[float, int, str, tuple[str, ...]]) -> Builder:
    """MPEG-TS pieces behind one another: (seconds, number of the first frame, size, more output options) each."""

    def build(path: Path) -> None:
        data = b""
        for number, (seconds, first, size, more) in enumerate(sources):
            piece = path.with_name(f"{path.stem}-piece{number}.ts")
            source = ("-f", "lavfi", "-i", picture(seconds, 30, size, first), "-f", "lavfi", "-i", tone(seconds))
            ffmpeg(*source, *X264, "-g", "60", *AAC, *more, piece)
            data += piece.read_bytes()
        path.write_bytes(data)

    return build


def _flv_restart(path: Path) -> None:
    """Two recordings in one FLV, the second's clock starting at 0 again: an encoder that came back."""
    data = b""
    for number in range(2):
        piece = path.with_name(f"{path.stem}-piece{number}.flv")
        source = ("-f", "lavfi", "-i", picture(6, 30, first=180 * number), "-f", "lavfi", "-i", tone(6))
        ffmpeg(*source, *X264, "-g", "60", *AAC, "-flvflags", "no_duration_filesize", piece)
        data += piece.read_bytes() if number == 0 else piece.read_bytes()[13:]  # behind the header
    path.write_bytes(data)


def _damaged(path: Path) -> None:
    data = bytearray(make("ts", path.parent).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(range(250)) * 8
    path.write_bytes(data)


def _with_cover(path: Path) -> None:
    cover = path.with_name("cover.jpg")
    ffmpeg("-f", "lavfi", "-i", "color=red:size=600x600", "-frames:v", "1", cover)
    ffmpeg(
        "-i", cover, "-i", make("mp4", path.parent), "-map", "1", "-map", "0", "-c", "copy",
        "-disposition:v:1", "attached_pic", path,
    )  # fmt: skip


def _text(content: bytes) -> Builder:
    def build(path: Path) -> None:
        path.write_bytes(content)

    return build


def _anullsrc(layout: str) -> str:
    return f"anullsrc=channel_layout={layout}:sample_rate=48000,atrim=duration=9"


_VFR: Final = "settb=1/1000,setpts='PTS+0.8*mod(N*7919\\,13)/13/30/TB'"
_HEVC: Final = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-tag:v", "hvc1")
_TEN_BITS: Final = ("-pix_fmt", "yuv420p10le")
_MPEG2: Final = ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2")


def _hdr(transfer: str) -> str:
    return f"format=yuv420p10le,setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc"


def _at(seconds: int) -> tuple[str, ...]:
    """Output options that start a piece at a time, to the frame: without an offset the muxer moves it a little."""
    return ("-output_ts_offset", str(seconds))


CLIPS: Final[dict[str, Clip]] = {
    # containers
    "mp4": Clip(".mp4", encoded(), 270),
    "mov": Clip(".mov", encoded(), 270),
    "mkv": Clip(".mkv", encoded(), 270),
    "flv": Clip(".flv", encoded(), 270),
    "ts": Clip(".ts", encoded(), 270),
    "ts-open-gop": Clip(
        ".ts",
        encoded(13, NTSC, video=(*X264, "-bf", "3", "-b_strategy", "0", "-x264-params", "open-gop=1")),
        390,
        NTSC,
    ),
    "fragmented": Clip(".mp4", encoded(more=("-movflags", "frag_keyframe+empty_moov+delay_moov")), 270),
    "webm": Clip(
        ".webm",
        encoded(video=("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"), audio=("-c:a", "libopus")),
        270,
        facts={"codec": "vp9"},
    ),
    # codecs
    "hevc": Clip(".mp4", encoded(video=_HEVC), 270, facts={"codec": "hevc"}),
    "av1": Clip(".mp4", encoded(video=("-c:v", "libsvtav1", "-preset", "12")), 270, facts={"codec": "av1"}),
    "mpeg2": Clip(".ts", encoded(9, 25, video=_MPEG2, audio=("-c:a", "mp2")), 225, Fraction(25)),
    "h264-10-bit": Clip(".mp4", encoded(more=_TEN_BITS), 270, facts={"bit_depth": 10}),
    "hevc-10-bit": Clip(".mp4", encoded(video=_HEVC, more=_TEN_BITS), 270, facts={"bit_depth": 10}),
    "hdr-pq": Clip(
        ".mp4",
        encoded(7, video=_HEVC, more=_TEN_BITS, filters=_hdr("smpte2084")),
        210,
        numbered=False,
        facts={"hdr": True},
    ),
    "hdr-hlg": Clip(
        ".mp4",
        encoded(7, video=_HEVC, more=_TEN_BITS, filters=_hdr("arib-std-b67")),
        210,
        numbered=False,
        facts={"hdr": True},
    ),
    # frame rates
    "rate-23.976": Clip(".mp4", encoded(12, Fraction(24000, 1001)), 288, Fraction(24000, 1001)),
    "rate-24": Clip(".mkv", encoded(9, 24), 216, Fraction(24)),
    "rate-25": Clip(".flv", encoded(9, 25), 225, Fraction(25)),
    "rate-29.97": Clip(".mkv", encoded(13, NTSC), 390, NTSC),
    "rate-50": Clip(".mp4", encoded(9, 50), 450, Fraction(50)),
    "rate-59.94": Clip(".mkv", encoded(9, Fraction(60000, 1001)), 540, Fraction(60000, 1001)),
    "rate-60": Clip(".ts", encoded(9, 60), 540, Fraction(60)),
    "rate-variable": Clip(
        ".mkv",
        encoded(9, filters=_VFR, more=("-fps_mode", "passthrough", "-enc_time_base", "1/1000")),
        None,
        facts={"variable_frame_rate": True},
    ),
    # pictures
    "interlaced": Clip(
        ".mp4",
        encoded(8, 50, filters="interlace", more=("-flags", "+ildct+ilme", "-x264-params", "tff=1")),
        200,
        Fraction(25),
        numbered=False,
        facts={"interlaced": True},
    ),
    "interlaced-mpeg2": Clip(
        ".ts",
        encoded(8, 50, video=(*_MPEG2, "-flags", "+ildct+ilme"), filters="interlace,setfield=tff"),
        200,
        Fraction(25),
        numbered=False,
        facts={"interlaced": True},
    ),
    "rotated-90": Clip(
        ".mp4", copied("mp4", before=("-display_rotation", "-90")), 270, size=(180, 320), numbered=False
    ),
    "rotated-180": Clip(".mp4", copied("mp4", before=("-display_rotation", "180")), 270, numbered=False),
    "rotated-270": Clip(
        ".mp4", copied("mp4", before=("-display_rotation", "90")), 270, size=(180, 320), numbered=False
    ),
    "odd-size": Clip(".mkv", encoded(size="321x181", more=("-pix_fmt", "yuv444p")), 270, size=(321, 181)),
    "anamorphic": Clip(".mp4", encoded(filters="setsar=4/3"), 270, size=(427, 180)),
    "portrait": Clip(".mp4", encoded(size="180x320"), 270, size=(180, 320)),
    "one-frame": Clip(".mp4", encoded(1 / 30, audio=None), 1, audio=0),
    "keyframes-10-s": Clip(".mkv", encoded(25, gop=300), 750),
    "size-changes": Clip(
        ".ts",
        joined((6, 0, "320x180", _at(1)), (6, 180, "640x360", _at(7))),
        360,
        notes=("recording-corrupt",),
    ),
    "cover": Clip(".mp4", _with_cover, 270),
    # clocks
    "starts-late-ts": Clip(".ts", copied("ts", "-output_ts_offset", "1400"), 270),
    "starts-late-mkv": Clip(".mkv", copied("mkv", "-output_ts_offset", "10"), 270),
    "jumps-60-s-ts": Clip(
        ".ts",
        joined((6, 0, "320x180", _at(1)), (6, 180, "320x180", _at(67))),
        360,
        notes=("clock-jumped", "recording-corrupt"),
    ),
    "restarts-ts": Clip(
        ".ts",
        joined((6, 0, "320x180", _at(100)), (6, 180, "320x180", _at(1))),
        360,
        notes=("clock-jumped", "recording-corrupt"),
    ),
    # The first part's sound is a packet longer than its picture; sound and picture stay together.
    "restarts-flv": Clip(
        ".flv",
        _flv_restart,
        361,
        notes=("clock-jumped",),
        numbers=lambda frame: frame if frame < 180 else frame - 1,
    ),
    "hole-3-s": Clip(
        ".ts",
        joined((6, 0, "320x180", _at(1)), (6, 180, "320x180", _at(10))),
        450,
        notes=("recording-corrupt",),
        numbers=lambda frame: frame if frame < 180 else 179 if frame < 270 else frame - 90,
    ),
    # sound
    "audio-late": Clip(".mkv", encoded(sound=f"{tone(8)},asetpts=PTS+1/TB"), 270),
    "audio-short": Clip(".mp4", encoded(sound=tone(7)), 270),
    "audio-long": Clip(".mp4", encoded(sound=tone(11)), 270, notes=("audio-cut",)),
    "audio-none": Clip(".mp4", encoded(audio=None), 270, audio=0),
    "audio-mono": Clip(".mp4", encoded(audio=("-c:a", "aac", "-ac", "1")), 270),
    "audio-5.1": Clip(".mp4", encoded(audio=("-c:a", "aac", "-ac", "6")), 270),
    "audio-silent": Clip(".mp4", encoded(sound=_anullsrc("stereo")), 270),
    "audio-44100": Clip(".mp4", encoded(sound=tone(9, rate=44100)), 270),
    "audio-mp3": Clip(".mkv", encoded(audio=("-c:a", "libmp3lame", "-ac", "2")), 270),
    "audio-ac3": Clip(".ts", encoded(audio=("-c:a", "ac3", "-ac", "2")), 270),
    "audio-opus": Clip(".mkv", encoded(audio=("-c:a", "libopus")), 270),
    "audio-two": Clip(
        ".mp4",
        copied("mp4", "-map", "0:a", "-metadata:s:a:0", "language=zho", "-metadata:s:a:1", "language=eng"),
        270,
        audio=2,
    ),
    # recordings that broke
    "late-start-ts": Clip(
        ".ts", cut("ts-open-gop", 0.1, 1.0), None, NTSC, numbered=False, notes=("video-starts-late",)
    ),
    "damaged-ts": Clip(".ts", _damaged, 270, numbered=False, notes=("recording-corrupt",)),
    "truncated-ts": Clip(".ts", cut("ts"), None, numbered=False),
    "truncated-flv": Clip(".flv", cut("flv"), None, numbered=False, notes=("recording-truncated", "recording-corrupt")),
    "truncated-mkv": Clip(".mkv", cut("mkv"), None, notes=("recording-truncated",)),
    "truncated-fragmented": Clip(".mp4", cut("fragmented"), None, notes=("recording-truncated",)),
}
