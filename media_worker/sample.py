"""A recording to try things with: moving pictures, a clock, a beep a second."""

from __future__ import annotations

from pathlib import Path

from control.bus.work import Work
from control.settings import MediaSettings
from media_worker.ffmpeg import ffmpeg_path
from media_worker.runner import run


def make_sample(path: Path, settings: MediaSettings, seconds: int = 18) -> None:
    """Write a recording like a live encoder's: 720p at 30 frames a second, keyframes every 2 s, AAC, in `path`.

    Raises EncoderFailed.
    """
    picture = f"testsrc2=size=1280x720:rate=30:duration={seconds}"
    # A beep at each full second, so that one hears whether sound and picture stay together.
    sound = f"aevalsrc=0.4*sin(2*PI*880*t)*lt(mod(t\\,1)\\,0.08)|0.4*sin(2*PI*660*t)*lt(mod(t\\,1)\\,0.08):d={seconds}"
    command = [
        ffmpeg_path(settings), "-hide_banner", "-nostdin", "-loglevel", "error", "-y",
        "-progress", "pipe:1", "-nostats",
        "-f", "lavfi", "-i", picture,
        "-f", "lavfi", "-i", f"{sound}:s=48000",
        "-c:v", "libx264", "-preset", "ultrafast", "-b:v", "4M", "-g", "60", "-pix_fmt", "yuv420p",
        "-c:a", "aac", "-b:a", "128k",
        str(path),
    ]  # fmt: skip
    run(command, Work("sample", 300), total_frames=seconds * 30)
