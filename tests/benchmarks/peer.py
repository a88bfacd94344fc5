"""The peer: one ffmpeg process that makes the same HLS ladder with the same encoder settings."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control.bus.messages import Plan, Rung
from tests.benchmarks.sources import ffmpeg

WAYS: Final = ("direct", "cascade")
"""Every rung scaled from the source, or each from the one above: which is faster depends on the machine."""


def single_command(source: Path, plan: Plan, out: Path, way: str) -> float:
    """Wall seconds of the ladder made in one of WAYS."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = _command(source, plan, out, way)
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def _command(source: Path, plan: Plan, out: Path, way: str) -> list[str]:
    rungs = plan.rungs
    command = [ffmpeg(), "-v", "error", "-nostdin", "-y", "-i", str(source), "-filter_complex", _graph(rungs, way)]
    for number, rung in enumerate(rungs):
        command += ["-map", f"[o{number}]", f"-b:v:{number}", f"{rung.video_kbps}k"]
        command += [f"-maxrate:v:{number}", f"{rung.max_kbps}k", f"-bufsize:v:{number}", f"{rung.buffer_kbits}k"]
    gop = str(plan.gop_frames)
    command += ["-c:v", "libx264", "-preset", plan.preset, "-profile:v", "high"]
    command += ["-g", gop, "-keyint_min", gop, "-sc_threshold", "0"]
    sound = "copy" if plan.audio[0].mode == "copy" else "aac"
    command += ["-map", "0:a:0", "-c:a", sound, *(["-b:a", "128k", "-ac", "2"] if sound == "aac" else [])]
    streams = " ".join(f"v:{number},agroup:a" for number in range(len(rungs))) + " a:0,agroup:a"
    command += ["-f", "hls", "-hls_time", "6", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"]
    command += ["-hls_flags", "independent_segments", "-master_pl_name", "master.m3u8", "-var_stream_map", streams]
    return [*command, str(out / "%v" / "playlist.m3u8")]


def _graph(rungs: Sequence[Rung], way: str) -> str:
    count = len(rungs)
    if way == "direct":
        taps = "".join(f"[s{number}]" for number in range(count))
        scales = (f"[s{n}]scale={rung.width}:{rung.height}[o{n}]" for n, rung in enumerate(rungs))
        return ";".join([f"[0:v]split={count}{taps}", *scales])
    parts = []
    for number, rung in enumerate(rungs):
        feed = "0:v" if number == 0 else f"n{number}"
        fork = f",split=2[o{number}][n{number + 1}]" if number < count - 1 else f"[o{number}]"
        parts.append(f"[{feed}]scale={rung.width}:{rung.height}{fork}")
    return ";".join(parts)
