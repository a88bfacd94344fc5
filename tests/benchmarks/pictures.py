"""Thumbnails and storyboard alone, on one core: × realtime and peak memory. `python -m tests.benchmarks.pictures`."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from control.bus.messages import ThumbnailJob
from control.bus.work import Work
from control.settings import current
from media_worker.pictures import make_pictures
from media_worker.probe import probe
from tests.benchmarks.sources import ffmpeg, make_recording

SECONDS: Final = 180
SUFFIXES: Final = ("mp4", "ts", "mkv", "flv")


def main() -> None:
    """Three minutes of 720p30 with a keyframe every 2 s, in each container a live is recorded to."""
    print(f"thumbnails and storyboard, {SECONDS} s of 720p30 (bar: 50 × realtime on one core, 150 MiB)")
    with tempfile.TemporaryDirectory(prefix="afterlive-bench-") as name:
        folder = Path(name)
        recording = make_recording(folder / "pictures.mp4", "1280x720", SECONDS)
        for suffix in SUFFIXES:
            source = recording.with_suffix(f".{suffix}")
            if source != recording:
                copy = [ffmpeg(), "-v", "error", "-nostdin", "-i", str(recording), "-c", "copy", str(source)]
                subprocess.run(copy, check=True)
            measure(source, folder / suffix)


def measure(source: Path, out: Path) -> float:
    """Make the pictures of `source`, print what it took, return × realtime of the processor's time."""
    address = f"file:{source}"
    info = probe(str(source), address, current().media, Work("bench", 600)).info
    job = ThumbnailJob(
        replay_id="bench",
        part="pictures",
        source=str(source),
        prefix="",
        video=info.video.model_copy(update={"keyframes": ()}),
        duration_seconds=info.duration_seconds,
    )
    out.mkdir()
    wall, processor = time.perf_counter(), time.process_time()
    result = make_pictures(address, job, out, Work("bench", 600))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in out.rglob("*.*")) / 1024
    # Against the processor's time: a second thread, or somebody else's load, must not flatter or spoil it.
    ratio = info.duration_seconds / processor
    print(
        f"  {source.suffix[1:]:4} {ratio:5.0f} × realtime  ({wall:.2f} s wall, {processor:.2f} s processor, "
        f"{result.tiles} tiles, {len(result.candidates)} candidates, {size:.0f} KiB, peak {peak:.0f} MiB)"
    )
    return ratio


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    main()
