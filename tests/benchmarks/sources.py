"""Recordings to measure with, made by ffmpeg, copied to the length that is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from control.settings import current
from media_worker.ffmpeg import ffmpeg_path


def ffmpeg() -> str:
    return ffmpeg_path(current().media)


def make_recording(path: Path, size: str, seconds: int, *, kbps: int = 4000) -> Path:
    """Moving, grainy pictures and a tone, as a live encoder records them: keyframes every 2 s, AAC-LC stereo.

    One minute is encoded; longer ones are that minute again and again, without encoding it anew.
    """
    minute = path.with_name(f"minute-{path.name}")
    picture = f"testsrc2=size={size}:rate=30:duration={min(seconds, 60)},noise=alls=10:allf=t"
    tone = f"sine=frequency=440:sample_rate=48000:duration={min(seconds, 60)}"
    encode = ["-c:v", "libx264", "-preset", "superfast", "-b:v", f"{kbps}k", "-g", "60", "-pix_fmt", "yuv420p"]
    sound = ["-c:a", "aac", "-ac", "2", "-b:a", "128k"]
    _run(["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, *encode, *sound, str(minute)])
    again = -(-seconds // 60) - 1
    _run(["-stream_loop", str(again), "-i", str(minute), "-c", "copy", "-t", str(seconds), str(path)])
    minute.unlink()
    return path


def _run(arguments: list[str]) -> None:
    subprocess.run([ffmpeg(), "-v", "error", "-nostdin", "-y", *arguments], check=True)
