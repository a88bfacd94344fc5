"""Video encoders as a table: how each is told to make the same thing, closed GOPs on a grid at a bounded rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from control.bus.messages import Rung
from control.errors import ConfigurationError

Options = dict[str, str | int]


@dataclass(frozen=True)
class Encoder:
    """One row: ffmpeg's name of it, and the options that make `rung` with an IDR every `gop` of its frames."""

    name: str
    options: Callable[[Rung, int, str, int], Options]
    """(rung, GOP in the rung's frames, preset, threads) → output options, without leading dashes."""


def _x264(rung: Rung, gop: int, preset: str, threads: int) -> Options:
    return {
        "c:v": "libx264",
        "preset": preset,
        "profile:v": rung.profile,
        # The output of x264 depends on the number of threads; a pinned one keeps every chunk reproducible.
        "threads": threads,
        # An IDR exactly every `gop` frames and nowhere else: rungs must be switchable at each segment.
        "g": gop,
        "keyint_min": gop,
        "sc_threshold": 0,
        # Average rate with a bounded peak: Apple asks for peaks under twice the average.
        "b:v": f"{rung.video_kbps}k",
        "maxrate": f"{rung.max_kbps}k",
        "bufsize": f"{rung.buffer_kbits}k",
    }


ENCODERS: Final[Mapping[str, Encoder]] = {
    "libx264": Encoder("libx264", _x264),
}


def encoder(name: str) -> Encoder:
    """The row of `name`. Raises ConfigurationError."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise ConfigurationError(setting="encoder", reason=f"{name!r} is none of {', '.join(ENCODERS)}") from None
