"""Which renditions a recording gets. Pure, but for reading a ladder file.

The default is the H.264 table of Apple's HLS Authoring Specification for Apple Devices (16:9, average kbit/s); sizes
are given by the short side, so that portrait swaps width and height by itself.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control.bus.messages import Rung, VideoTrack
from control.errors import LadderInvalid

_PEAK: Final = 1.5  # VBV maximum over average: Apple asks for peaks under twice the average
_BUFFER: Final = 2.0  # seconds of average rate the decoder buffers
_WIDE: Final = Fraction(16, 9)
_NATIVE_GAP: Final = 1.15  # a table step this near below the source's own size is replaced by it
_MOST_FPS: Final = 60


class Step(BaseModel):
    """One row of a ladder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    short_side: int = Field(ge=64, le=4320)
    """Height of a landscape picture, width of a portrait one."""
    kbps: int = Field(ge=32, le=100_000)
    """Average for 16:9 at up to 30 frames a second."""
    fast_kbps: int | None = Field(default=None, ge=32, le=100_000)
    """Average above 30 frames a second; None is `kbps`."""
    max_fps: int = Field(default=_MOST_FPS, ge=1, le=_MOST_FPS)


APPLE: Final = (
    Step(short_side=1080, kbps=6000, fast_kbps=7800),
    Step(short_side=720, kbps=3000, fast_kbps=4500),
    Step(short_side=540, kbps=2000),
    Step(short_side=432, kbps=730, fast_kbps=1100, max_fps=30),
    Step(short_side=360, kbps=365, max_fps=30),
    Step(short_side=234, kbps=145, max_fps=30),
)


def read_ladder(path: Path) -> tuple[Step, ...]:
    """A ladder file: TOML, one `[[rung]]` a rendition with `short_side`, `kbps` and, optionally, `fast_kbps` and
    `max_fps`. Raises LadderInvalid naming the row and what is wrong."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("rung", [])
        if not isinstance(rows, list) or not rows:
            raise LadderInvalid(source=str(path), reason="it has no [[rung]]")
        steps = []
        for number, row in enumerate(rows, 1):
            try:
                steps.append(Step.model_validate(row))
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"]) or "row"
                raise LadderInvalid(source=str(path), reason=f"rung {number}, {field}: {first['msg']}") from error
    except OSError as error:
        raise LadderInvalid(source=str(path), reason=error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LadderInvalid(source=str(path), reason=str(error)) from error
    sides = [step.short_side for step in steps]
    if len(set(sides)) != len(sides):
        raise LadderInvalid(source=str(path), reason="two rungs have the same short_side")
    return tuple(sorted(steps, key=lambda step: -step.short_side))


def make_rungs(video: VideoTrack, frame_rate: Fraction, own: Sequence[Step] | None = None) -> tuple[Rung, ...]:
    """The renditions of `video`, best first; at least one, none larger than the source.

    Where the source lies between two steps of Apple's table (480p, 600p), its own size comes on top at a rate between
    theirs. A ladder of one's `own` is taken as it is, but for a source smaller than all of it.
    """
    steps = own or APPLE
    short = min(video.width, video.height) // 2 * 2
    short = max(short, 2)
    fitting = [step for step in sorted(steps, key=lambda s: -s.short_side) if step.short_side <= short]
    if not fitting or (not own and fitting[0].short_side < short < max(step.short_side for step in steps)):
        native = _between(short, steps)
        while fitting and short / fitting[0].short_side < _NATIVE_GAP:
            fitting.pop(0)
        fitting.insert(0, native)
    return tuple(_rung(step, video, frame_rate) for step in fitting)


def _between(short: int, steps: Sequence[Step]) -> Step:
    """A step of the source's own size; its rate lies on the line (log rate over log pixels) through its neighbours."""
    above = min((s for s in steps if s.short_side >= short), key=lambda s: s.short_side)
    below = max((s for s in steps if s.short_side < short), key=lambda s: s.short_side, default=None)
    if below is None:
        share = short / above.short_side
        return Step.model_construct(
            short_side=short, kbps=max(32, round(above.kbps * share**1.5)), fast_kbps=None, max_fps=above.max_fps
        )
    span = math.log(above.short_side / below.short_side)
    share = math.log(short / below.short_side) / span
    kbps = below.kbps * (above.kbps / below.kbps) ** share
    low, high = below.fast_kbps or below.kbps, above.fast_kbps or above.kbps
    fast = low * (high / low) ** share
    return Step.model_construct(short_side=short, kbps=round(kbps), fast_kbps=round(fast), max_fps=above.max_fps)


def _rung(step: Step, video: VideoTrack, frame_rate: Fraction) -> Rung:
    short, long = sorted((video.width, video.height))
    scale = Fraction(step.short_side, short)
    width, height = (min(_even(side * scale), side // 2 * 2 or 2) for side in (video.width, video.height))
    frame_step = 2 if frame_rate > step.max_fps else 1
    rate = frame_rate / frame_step
    # Pictures that are not 16:9 have fewer or more pixels; rate grows slower than pixels do.
    shape = float(Fraction(long, short) / _WIDE) ** 0.75
    kbps = max(32, round((step.fast_kbps or step.kbps if rate > 30 else step.kbps) * shape))
    return Rung(
        name=f"{step.short_side}p",
        width=width,
        height=height,
        frame_step=frame_step,
        frame_rate=rate,
        timescale=timescale(rate),
        **rates(kbps),
    )


def rates(kbps: int) -> dict[str, int]:
    """A rung's fields for an average of `kbps`."""
    return {"video_kbps": kbps, "max_kbps": round(kbps * _PEAK), "buffer_kbits": round(kbps * _BUFFER)}


def timescale(rate: Fraction) -> int:
    """Ticks a second such that a frame is a whole number of them, and fine enough for players' sums."""
    return rate.numerator * (1 if rate.numerator >= 10_000 else 1000)


def _even(side: Fraction) -> int:
    return max(2, round(side / 2) * 2)
