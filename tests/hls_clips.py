"""Small correct HLS presentations, made of real ffmpeg output; tests break them one rule at a time."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from control.bus.messages import AudioRendition, Chunk, IFrame, Plan, Rung, Segment, Track
from media_worker.boxes import Fragment, parse_fragments, parse_init
from media_worker.verify import Report
from pipelines.playlists import (
    IFRAME_PLAYLIST,
    INIT,
    MASTER_PLAYLIST,
    MEDIA_PLAYLIST,
    iframe_playlist,
    master_playlist,
    media_playlist,
)

VIDEO_FLAGS = "empty_moov+default_base_moof+frag_discont+negative_cts_offsets"
AUDIO_FLAGS = "empty_moov+default_base_moof+delay_moov"
FRAME_RATE = 30
SECONDS = 14


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def encode_video(path: Path, width: int, height: int, *, rate: int = FRAME_RATE, more: Sequence[str] = ()) -> None:
    """A moving test picture, IDR every 2 s, a fragment a GOP."""
    gop = str(2 * rate)
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size={width}x{height}:rate={rate}:duration={SECONDS}"),
        *("-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-pix_fmt", "yuv420p"),
        *("-g", gop, "-keyint_min", gop, "-sc_threshold", "0", "-video_track_timescale", str(1000 * rate)),
        *("-f", "mp4", "-movflags", f"frag_keyframe+{VIDEO_FLAGS}", "-use_editlist", "0", *more, str(path)),
    )


def encode_audio(path: Path, seconds: float = SECONDS) -> None:
    """A sine tone, a fragment of about 6 s."""
    ffmpeg(
        *("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}"),
        *("-c:a", "aac", "-ac", "2", "-b:a", "64k", "-f", "mp4", "-movflags", AUDIO_FLAGS),
        *("-frag_duration", "6000000", str(path)),
    )


def cut(path: Path, folder: Path, per_segment: Sequence[int]) -> Track:
    """Write `path`'s fragments as init and segments, so many fragments in each segment (the last number repeats)."""
    data = path.read_bytes()
    init = parse_init(data)
    fragments = parse_fragments(data, init)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INIT).write_bytes(data[: init.size])
    segments: list[Segment] = []
    first = 0
    while first < len(fragments):
        number = len(segments)
        group = fragments[first : first + per_segment[min(number, len(per_segment) - 1)]]
        first += len(group)
        start, end = group[0].offset, group[-1].offset + group[-1].size
        name = f"seg-{number:05d}.m4s"
        (folder / name).write_bytes(data[start:end])
        ticks = sum(fragment.duration for fragment in group)
        heard = ticks - (init.edit_media_time or 0 if number == 0 else 0)
        segments.append(
            Segment(
                name=name,
                size_bytes=end - start,
                ticks=heard,
                iframes=_iframes(group, start) if init.handler == "vide" else (),
            )
        )
    return Track(
        name=folder.name,
        codecs=init.codecs,
        timescale=init.timescale,
        init_sha256=hashlib.sha256(data[: init.size]).hexdigest(),
        frames=sum(len(fragment.samples) for fragment in fragments),
        segments=tuple(segments),
    )


def _iframes(group: Sequence[Fragment], start: int) -> tuple[IFrame, ...]:
    heads = [index for index, fragment in enumerate(group) if fragment.samples[0].sync]
    found: list[IFrame] = []
    for index, following in zip(heads, [*heads[1:], len(group)], strict=True):
        fragment = group[index]
        sample = fragment.samples[0]
        found.append(
            IFrame(
                offset=fragment.offset - start,
                size_bytes=sample.offset + sample.size - fragment.offset,
                ticks=sum(each.duration for each in group[index:following]),
            )
        )
    return tuple(found)


@dataclass
class Hls:
    """A presentation on disk and what it was made of."""

    folder: Path
    plan: Plan
    video: dict[str, Track]
    audio: dict[str, Track]

    @property
    def master(self) -> Path:
        return self.folder / MASTER_PLAYLIST

    def write_playlists(self) -> None:
        for name, track in {**self.video, **self.audio}.items():
            (self.folder / name / MEDIA_PLAYLIST).write_text(media_playlist(track, complete=True))
        for name, track in self.video.items():
            (self.folder / name / IFRAME_PLAYLIST).write_text(iframe_playlist(track, complete=True))
        self.master.write_text(master_playlist(self.plan, self.video, self.audio))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there in one of the files."""
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))


def plan_of(sizes: Sequence[tuple[str, int, int, int]], *, audio: bool = True) -> Plan:
    """The plan of `(name, width, height, frame rate)` rungs."""
    frames = SECONDS * FRAME_RATE
    return Plan(
        frame_rate=Fraction(FRAME_RATE),
        frames=frames,
        gop_frames=2 * FRAME_RATE,
        segment_frames=6 * FRAME_RATE,
        rungs=tuple(
            Rung(
                name=name,
                width=width,
                height=height,
                frame_step=1 if rate == FRAME_RATE else 2,
                frame_rate=Fraction(rate),
                video_kbps=300,
                max_kbps=450,
                buffer_kbits=600,
                timescale=1000 * rate,
            )
            for name, width, height, rate in sizes
        ),
        chunks=(Chunk(index=0, first_frame=0, frames=frames, first_segment=0, entry_pts=None),),
        audio=(AudioRendition(name="audio", track_index=1, mode="encode", language="eng"),) if audio else (),
    )


def build(folder: Path) -> Hls:
    """Two rungs (320×180 and 160×90) and audio, 14 s, 6 s segments: every rule holds."""
    sizes = (("180p", 320, 180, FRAME_RATE), ("90p", 160, 90, FRAME_RATE))
    source = folder.parent / f"{folder.name}-source"
    source.mkdir()
    video: dict[str, Track] = {}
    for name, width, height, rate in sizes:
        encode_video(source / f"{name}.mp4", width, height, rate=rate)
        video[name] = cut(source / f"{name}.mp4", folder / name, [3])
    encode_audio(source / "audio.mp4")
    hls = Hls(folder, plan_of(sizes), video, {"audio": cut(source / "audio.mp4", folder / "audio", [1])})
    hls.write_playlists()
    return hls


def broken_rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}
