"""How test clips are made: one ffmpeg command each, and the few that take bytes of others apart."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path
from tests.frame_numbers import paint_numbers

Builder = Callable[[Path], None]

TS_PACKET: Final = 188
_SEED: Final = 20_240_229


@dataclass(frozen=True)
class Source:
    """A numbered test picture and tones."""

    frames: int = 120
    rate: Fraction = Fraction(30)
    size: tuple[int, int] = (320, 180)
    first: int = 0
    """Number painted on the first frame."""
    before: str = ""
    """Filters before the numbers are painted."""
    after: str = ""
    """Filters after."""
    base: str = "testsrc2"
    source_rate: Fraction | None = None
    """Rate before the filters, where it is not `rate`."""
    sounds: tuple[str, ...] | None = None
    """lavfi sources; None is one sine of the picture's length."""

    @property
    def seconds(self) -> Fraction:
        return self.frames / self.rate

    def inputs(self) -> list[str]:
        width, height = self.size
        picture = f"{self.base}=size={width}x{height}:rate={self.source_rate or self.rate}"
        chain = ",".join(part for part in (picture, self.before, "format=yuv420p", paint_numbers(self.first)) if part)
        # Cut in the graph: an encoder that has its fill of pictures would end the sound too.
        chain += f"{',' if self.after else ''}{self.after},trim=end_frame={self.frames}"
        inputs = ["-f", "lavfi", "-i", chain]
        for sound in self.sounds if self.sounds is not None else (sine(self.seconds),):
            inputs += ["-f", "lavfi", "-i", sound]
        return inputs


@dataclass(frozen=True)
class Recipe:
    """A source and the options it is encoded with."""

    source: Source = field(default_factory=Source)
    options: tuple[str, ...] = ()

    def __call__(self, path: Path) -> None:
        sounds = self.source.sounds
        maps = ["-map", "0:v"]
        for number in range(1 if sounds is None else len(sounds)):
            maps += ["-map", f"{number + 1}:a"]
        ffmpeg(*self.source.inputs(), *maps, *self.options, str(path))


def ffmpeg(*arguments: str) -> None:
    """Run ffmpeg; raises CalledProcessError with what it said."""
    command = [ffmpeg_path(MediaSettings()), "-v", "error", "-nostdin", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ffmpeg: {done.stderr.strip()}\n{command}")


def sine(seconds: Fraction | float, frequency: int = 440, sample_rate: int = 48000) -> str:
    """A tone as a lavfi source."""
    return f"sine=frequency={frequency}:sample_rate={sample_rate}:duration={float(seconds):.6f}"


def h264(gop: int = 60, *more: str) -> tuple[str, ...]:
    """x264, fast, a keyframe every `gop` frames and nowhere else."""
    fixed = ("-g", str(gop), "-keyint_min", str(gop), "-sc_threshold", "0", "-pix_fmt", "yuv420p")
    return ("-c:v", "libx264", "-preset", "ultrafast", *fixed, *more)


def hevc(gop: int = 60, *more: str, parameters: str = "") -> tuple[str, ...]:
    """x265, fast, closed GOPs."""
    fixed = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:log-level=error{parameters}"
    return ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", fixed, "-pix_fmt", "yuv420p", *more)


AAC: Final = ("-c:a", "aac", "-ac", "2", "-b:a", "96k")


def turned(stored: str, display_rotation: int, source: Source) -> Builder:
    """Pictures turned by the filters `stored`, and a display matrix that turns them back (degrees, anticlockwise)."""

    def build(path: Path) -> None:
        plain = path.with_name(f"plain-{path.name}")
        Recipe(Source(**{**vars(source), "after": stored}), (*h264(), *AAC))(plain)
        matrix = ("-display_rotation:v:0", str(display_rotation))
        ffmpeg(*matrix, "-i", str(plain), "-map", "0", "-c", "copy", str(path))
        plain.unlink()

    return build


def joined(first: Recipe, second: Recipe, *, offset_seconds: float, suffix: str) -> Builder:
    """Two recordings in one file, as a server writes that appends after a reconnect: the second `offset_seconds` on."""

    def build(path: Path) -> None:
        one, two = (path.with_name(f"{part}-{path.stem}.{suffix}") for part in ("one", "two"))
        if suffix == "flv":
            live = ("-flvflags", "no_duration_filesize")
            Recipe(first.source, (*first.options, *live))(one)
            Recipe(second.source, (*second.options, *live))(two)
            path.write_bytes(one.read_bytes() + flv_tags(two.read_bytes(), round(offset_seconds * 1000)))
        else:
            # Both a second on: else the first one alone would be moved by the priming samples of its sound.
            Recipe(first.source, (*first.options, "-output_ts_offset", "1"))(one)
            shift = ("-output_ts_offset", str(1 + offset_seconds), "-mpegts_flags", "+initial_discontinuity")
            Recipe(second.source, (*second.options, *shift))(two)
            path.write_bytes(one.read_bytes() + two.read_bytes())
        one.unlink()
        two.unlink()

    return build


def flv_tags(data: bytes, offset_ms: int) -> bytes:
    """The audio and video tags of an FLV file, their times moved (Adobe FLV 10.1, annex E.4)."""
    out = bytearray()
    place = 9 + 4
    while place + 11 <= len(data):
        size = int.from_bytes(data[place + 1 : place + 4], "big")
        tag = bytearray(data[place : place + 11 + size + 4])
        if tag[0] in (8, 9):
            # 24 low bits, then 8 high ones.
            time = int.from_bytes(bytes((tag[7], tag[4], tag[5], tag[6])), "big") + offset_ms
            tag[7], tag[4], tag[5], tag[6] = time.to_bytes(4, "big")
            out += tag
        place += len(tag)
    return bytes(out)


def cut(whole: Builder, share: float = 0.6) -> Builder:
    """What is left of a file whose writing stopped: the first `share` of its bytes."""

    def build(path: Path) -> None:
        whole(path)
        data = path.read_bytes()
        path.write_bytes(data[: round(len(data) * share)])

    return build


def headless(whole: Builder, packets: int) -> Builder:
    """A transport stream joined in the middle: what comes before the video packet number `packets` is missing."""

    def build(path: Path) -> None:
        whole(path)
        with av.open(str(path)) as container:
            for number, packet in enumerate(container.demux(container.streams.video[0])):
                if number == packets:
                    place = packet.pos
                    break
        assert place is not None
        path.write_bytes(path.read_bytes()[place // TS_PACKET * TS_PACKET :])

    return build


def damaged(whole: Builder, packets: int = 12) -> Builder:
    """A transport stream with noise over `packets` of its packets, in the middle."""

    def build(path: Path) -> None:
        whole(path)
        data = bytearray(path.read_bytes())
        place = len(data) // 2 // TS_PACKET * TS_PACKET
        size = packets * TS_PACKET
        data[place : place + size] = random.Random(_SEED).randbytes(size)
        path.write_bytes(data)

    return build


def covered(path: Path) -> None:
    """A programme with a cover picture larger than itself."""
    plain, cover = path.with_name(f"plain-{path.name}"), path.with_suffix(".jpg")
    Recipe(options=(*h264(), *AAC))(plain)
    ffmpeg("-f", "lavfi", "-i", "color=red:size=640x640", "-frames:v", "1", str(cover))
    maps = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic")
    ffmpeg("-i", str(plain), "-i", str(cover), *maps, str(path))
    plain.unlink()
    cover.unlink()


def sound_only(path: Path) -> None:
    """A tone and no picture."""
    ffmpeg("-f", "lavfi", "-i", sine(4), *AAC, str(path))


def written(data: bytes | str) -> Builder:
    """A file of these bytes."""

    def build(path: Path) -> None:
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return build


def noise(size_bytes: int = 65_536) -> Builder:
    """Bytes that mean nothing, the same ones every time."""
    return written(random.Random(_SEED).randbytes(size_bytes))


def spliced(*pictures: str, joint: str = "", options: Sequence[str]) -> Builder:
    """Pictures (lavfi sources that end by themselves) one after the other in one recording, without sound.

    `joint` is the filter that joins [0:v], [1:v], …; hard cuts where it is empty.
    """

    def build(path: Path) -> None:
        inputs = [argument for picture in pictures for argument in ("-f", "lavfi", "-i", f"{picture},format=yuv420p")]
        pads = "".join(f"[{number}:v]" for number in range(len(pictures)))
        graph = f"{pads}{joint or f'concat=n={len(pictures)}:v=1'}[v]"
        ffmpeg(*inputs, "-filter_complex", graph, "-map", "[v]", *options, str(path))

    return build
