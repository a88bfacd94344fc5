"""The audio of a whole programme, once: copied where it is fit already, else encoded. Never inside chunks, where each
join would cost a click."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from control.bus.messages import AudioJob
from control.bus.work import Work
from control.errors import EncoderFailed
from media_worker.audio_command import copy_command, encode_command, loudness_command
from media_worker.runner import run

_QUIETEST_LUFS = -70.0  # EBU R 128's absolute gate: below it nothing is heard, and nothing was measured
_MOST_GAIN_DB = 24.0


@dataclass(frozen=True)
class Sound:
    """How a programme's audio was made."""

    mode: Literal["copy", "encode"]
    seconds: float
    loudness_lufs: float | None
    """Of the source; None for silence."""


def make_audio(ffmpeg_path: str, job: AudioJob, address: str, out: Path, work: Work) -> Sound:
    """Write the programme's audio to `out` as fragmented MP4.

    What is planned to be copied is encoded where it turns out damaged: a decoder that conceals a torn packet is here,
    not in every browser. Raises EncoderFailed, Cancelled, DeadlineExceeded.
    """
    started = time.monotonic()
    mode, loudness = job.rendition.mode, None
    if mode == "copy":
        try:
            loudness = _measure(
                loudness_command(ffmpeg_path, address, job.rendition.track_index, strict=True), job, work
            )
            _measure(copy_command(ffmpeg_path, job, address, out), job, work)
        except EncoderFailed:
            mode = "encode"
    if mode == "encode":
        gain = 0.0
        if job.normalise_lufs is not None:
            loudness = _measure(loudness_command(ffmpeg_path, address, job.rendition.track_index), job, work)
            gain = _gain(loudness, job.normalise_lufs)
        measure = job.normalise_lufs is None
        heard = _measure(encode_command(ffmpeg_path, job, address, out, gain_db=gain, measure=measure), job, work)
        loudness = heard if measure else loudness
    return Sound(mode, time.monotonic() - started, loudness)


def _measure(command: list[str], job: AudioJob, work: Work) -> float | None:
    """Run `command`; the integrated loudness it printed last, None where that is silence or where it prints none."""
    heard = -math.inf

    def listen(_key: str, value: str) -> None:
        nonlocal heard
        heard = float(value)

    length = float(job.duration_seconds)
    run(command, work, total_frames=max(1, round(length)), total_seconds=length, on_metadata=listen)
    return round(heard, 1) if heard > _QUIETEST_LUFS else None


def _gain(loudness: float | None, target: float) -> float:
    if loudness is None:
        return 0.0
    return max(-_MOST_GAIN_DB, min(_MOST_GAIN_DB, target - loudness))
