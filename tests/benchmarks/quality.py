"""`make bench BENCH_ARGS=--quality`: Apple's fixed ladder against the one that follows content, scored by VMAF."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.bus.work import Work
from control.settings import current
from media_worker.complexity import measure_complexity
from media_worker.probe import probe
from media_worker.verify import score
from tests.benchmarks import ours
from tests.benchmarks.bd_rate import Point, bd_rate
from tests.benchmarks.sources import ffmpeg

SECONDS: Final = 12
_WALL: Final = (
    "gradients=rate=30:duration={s}:speed=0.00001:c0=0xE8D8C8:c1=0x604838:x0=0:y0=0:x1=1280:y1=720:nb_colors=2"
)
# As a phone's encoder sends them; everything ffmpeg would choose at random is told.
PICTURES: Final = {
    "talking head": f"{_WALL}:size=1280x720,format=yuv420p,noise=alls=12:all_seed=1,gblur=1.2,split[a][b];"
    "[b]crop=320:420:400:100,hue=h=40,noise=alls=30:all_seed=2,gblur=1[c];"
    "[a][c]overlay=x='480+12*sin(t*2)':y='150+6*sin(t*3.1)',noise=alls=2:allf=t:all_seed=3",
    "slides": "testsrc2=size=1280x720:rate=1:duration={s},fps=30",
    "catwalk": f"{_WALL}:size=1920x1080,format=yuv420p,noise=alls=40:all_seed=1,gblur=1,"
    "crop=1280:720:x='320+300*sin(t*1.7)':y='180+150*cos(t*2.3)',noise=alls=10:allf=t:all_seed=2",
}


@dataclass(frozen=True)
class Ladder:
    """One way's replay of one recording."""

    rungs: dict[str, Point]
    """Name → (kbit/s, VMAF)."""
    seconds: float

    @property
    def kbps(self) -> float:
        return sum(kbps for kbps, _ in self.rungs.values())

    @property
    def best(self) -> Point:
        return next(iter(self.rungs.values()))


def main(clips: Path | None = None) -> None:
    """Made recordings, and those of the folder `clips`: 10 s or longer each."""
    print("content-aware ladder against Apple's fixed one: bits, VMAF, and BD-rate over VMAF (bits at equal quality)")
    with tempfile.TemporaryDirectory(prefix="afterlive-bench-") as name:
        for source in _recordings(Path(name), clips):
            _compare(source, Path(name))


def _recordings(folder: Path, clips: Path | None) -> Iterator[Path]:
    for name, picture in PICTURES.items():
        path = folder / f"{name}.mp4"
        encode = ["-c:v", "libx264", "-preset", "superfast", "-b:v", "4M", "-maxrate", "5M", "-bufsize", "8M"]
        command = ["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", picture.format(s=SECONDS), *encode]
        subprocess.run([ffmpeg(), *command, "-g", "60", "-pix_fmt", "yuv420p", str(path)], check=True)
        yield path
    if clips:
        yield from sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".mkv", ".mov"))


def _compare(source: Path, work: Path) -> None:
    fixed = _replay(source, work / "fixed", content_aware="false")
    fitted = _replay(source, work / "fitted", content_aware="true")
    video = probe(str(source), f"file:{source}", current().media, Work("bench", 600)).info.video
    started = time.perf_counter()
    found = measure_complexity(f"file:{source}", video, current().media, Work("bench", 600))
    measuring = time.perf_counter() - started
    print(f"{source.stem}, {video.width}×{video.height}: complexity {found.points if found else 'not measured'}")
    for way, ladder in (("fixed", fixed), ("content", fitted)):
        rungs = "  ".join(f"{name} {kbps:.0f} ({vmaf:.1f})" for name, (kbps, vmaf) in ladder.rungs.items())
        print(f"  {way:8} {ladder.kbps:6.0f} kbit/s in all, {ladder.seconds:5.1f} s   {rungs}")
    saved = 1 - fitted.kbps / fixed.kbps
    best, lost = 1 - fitted.best[0] / fixed.best[0], fixed.best[1] - fitted.best[1]
    bits = bd_rate(list(fixed.rungs.values()), list(fitted.rungs.values()))
    print(
        f"  saved: {saved:.0%} of all bits, {best:.0%} of the best rung's for {lost:.1f} VMAF; "
        f"BD-rate {'-' if bits is None else f'{bits:+.1%}'}; measuring took {measuring:.2f} s",
        flush=True,
    )


def _replay(source: Path, out: Path, content_aware: str) -> Ladder:
    made = ours.replay(source, out, AFTERLIVE_MEDIA_CONTENT_AWARE=content_aware)
    summary = json.loads((out / "replay.json").read_text())
    found = {
        each.rendition.split("/")[0]: each
        for each in score(str(out / "master.m3u8"), str(source), current(), segments=1)
    }
    shutil.rmtree(out)
    rungs = {}
    for rung in summary["rungs"]:
        vmaf = found[rung["name"]].vmaf
        if vmaf is None:
            raise RuntimeError("this ffmpeg has no libvmaf: unset AFTERLIVE_MEDIA_FFMPEG")
        rungs[rung["name"]] = (rung["average_bps"] / 1000, vmaf)
    return Ladder(rungs, made.seconds)
