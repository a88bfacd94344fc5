"""Recordings for the tests of whole commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path


def make(path: Path, *, seconds: float = 20, size: str = "640x360", tone: int = 440) -> Path:
    """A recording like a live encoder's, cheap to make: keyframes every 2 s, AAC-LC stereo."""
    command = [ffmpeg_path(MediaSettings()), "-v", "error", "-nostdin", "-y"]
    command += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30:duration={seconds}"]
    command += ["-f", "lavfi", "-i", f"sine=frequency={tone}:sample_rate=48000:duration={seconds}"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-pix_fmt", "yuv420p"]
    command += ["-c:a", "aac", "-ac", "2", str(path)]
    subprocess.run(command, check=True)
    return path
