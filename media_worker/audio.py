"""The audio of a whole programme, once: copied where it is fit already, else encoded. Never inside chunks, where each
join would cost a click."""

from __future__ import annotations

import math
import time
from pathlib import Path

from control.bus.messages import AudioJob
from control.bus.work import Work
from media_worker.audio_command import copy_command, encode_command, loudness_command
from media_worker.runner import run

_QUIETEST_LUFS = -70.0  # EBU R 128's absolute gate: below it nothing is heard, and nothing was measured
_MOST_GAIN_DB = 24.0


def make_audio(ffmpeg_path: str, job: AudioJob, address: str, out: Path, work: Work) -> tuple[float, float | None]:
    """Write the programme's audio to `out` as fragmented MP4; (seconds it took, loudness of the source in LUFS).

    Raises EncoderFailed, Cancelled, DeadlineExceeded.
    """
    started = time.monotonic()
    length = float(job.duration_seconds)
    total = max(1, round(length))
    heard: dict[str, float] = {}

    def listen(key: str, value: str) -> None:
        heard[key] = float(value)

    if job.rendition.mode == "copy" or job.normalise_lufs is not None:
        measure = loudness_command(ffmpeg_path, address, job.rendition.track_index)
        run(measure, work, total_frames=total, total_seconds=length, on_metadata=listen)
    if job.rendition.mode == "copy":
        copy = copy_command(ffmpeg_path, job, address, out)
        run(copy, work, total_frames=total, total_seconds=length)
    else:
        gain = _gain(heard.get("lavfi.r128.I"), job.normalise_lufs)
        encode = encode_command(ffmpeg_path, job, address, out, gain_db=gain, measure=not heard)
        run(encode, work, total_frames=total, total_seconds=length, on_metadata=listen)
    loudness = heard.get("lavfi.r128.I", -math.inf)
    return time.monotonic() - started, round(loudness, 1) if loudness > _QUIETEST_LUFS else None


def _gain(loudness: float | None, target: float | None) -> float:
    if target is None or loudness is None or loudness <= _QUIETEST_LUFS:
        return 0.0
    return max(-_MOST_GAIN_DB, min(_MOST_GAIN_DB, target - loudness))
