"""Rates by content: a talking head needs fewer bits than a catwalk. Pure.

Apple's table is the ceiling. Below it a rung gets what the recording was measured to need at constant quality
(`media_worker.complexity`), and no more than the recording itself has to show; a rung that costs about what the next
better one costs is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from control.bus.messages import Complexity, MediaInfo, Rung, RungChoice
from pipelines.ladder import rates

# A whole recording at constant quality takes 1.0 to 1.3 times what is measured of it in short runs.
_HEADROOM: Final = 1.25
# Of the table. What was looked at is not all: a quiet recording may have its moments.
_LEAST: Final = Fraction(1, 3)
# The table's smallest: a line that takes less takes no video, so less would spare nobody anything.
_LEAST_KBPS: Final = 145
# Half the frames take two thirds of the bits where all moves, and all of them where little does.
_FRAME_RATE_EXPONENT: Final = 0.3
# Bits grow slower than pixels.
_SIZE_EXPONENT: Final = 1.5
# A rung is worth having where the next better one takes this much more. The table's own steps are 1.5 and wider.
_STEP: Final = 1.35
# Encoded anew at so many times its own rate, a recording looks as it did; more shows nothing more. By how far its codec
# is ahead of fast H.264.
_TIMES_SOURCE: Final = {"h264": 2.0, "hevc": 3.0, "vp9": 3.0, "av1": 4.0}
_TIMES_OTHERS: Final = 1.5

_TABLE: Final = "as Apple's table"
_CONTENT: Final = "its pictures need no more"
_SOURCE: Final = "the recording itself has no more to show"
_FLOOR: Final = "the least it may have: a third of Apple's table, and Apple's smallest rate"


def fit_to_content(
    rungs: Sequence[Rung], info: MediaInfo, complexity: Complexity
) -> tuple[tuple[Rung, ...], tuple[RungChoice, ...]]:
    """`rungs` (best first) at the rates this recording needs, less those that add nothing; and what became of each.

    The best always stays, it is what the seller recorded; the smallest, which bad lines get, goes only where a better
    one takes no more.
    """
    kept: list[Rung] = []
    choices = []
    for rung in rungs:
        needed, source = _needed_kbps(rung, complexity), _source_kbps(rung, info)
        kbps, why = _rate(rung.video_kbps, needed, source)
        above = kept[-1] if kept else None
        if above and above.video_kbps <= kbps * (_STEP if rung is not rungs[-1] else 1):
            why = f"left out: {above.name} takes hardly more"
            choices.append(_choice(rung, needed, None, why))
            continue
        kept.append(rung.model_copy(update=rates(kbps)))
        choices.append(_choice(rung, needed, kbps, why))
    return tuple(kept), tuple(choices)


def _rate(table: int, needed: int, source: int) -> tuple[int, str]:
    least = max(math.ceil(table * _LEAST), min(table, _LEAST_KBPS))
    kbps, why = min((table, _TABLE), (needed, _CONTENT), (source, _SOURCE), key=lambda each: each[0])
    return (least, _FLOOR) if kbps < least else (kbps, why)


def _needed_kbps(rung: Rung, complexity: Complexity) -> int:
    """On the line (log rate over log size) through the sizes that were measured."""
    large, small = complexity.points[0], complexity.points[-1]
    side = min(rung.width, rung.height)
    exponent = _SIZE_EXPONENT
    if large.short_side > small.short_side:
        exponent = math.log(large.busy_kbps / small.busy_kbps) / math.log(large.short_side / small.short_side)
    frames = math.pow(rung.frame_rate / complexity.frame_rate, _FRAME_RATE_EXPONENT)
    kbps = large.busy_kbps * math.pow(side / large.short_side, exponent) * frames * _HEADROOM
    return max(1, round(kbps))


def _source_kbps(rung: Rung, info: MediaInfo) -> int:
    """As many times the recording's own rate as shows all it has."""
    video = info.video
    source = info.size_bytes * 8 / 1000 / max(info.duration_seconds, 0.001)
    share = math.pow(min(1.0, rung.width * rung.height / (video.width * video.height)), _SIZE_EXPONENT / 2)
    return max(1, round(source * _TIMES_SOURCE.get(video.codec, _TIMES_OTHERS) * share))


def _choice(rung: Rung, needed: int, kbps: int | None, why: str) -> RungChoice:
    return RungChoice(name=rung.name, table_kbps=rung.video_kbps, needed_kbps=needed, kbps=kbps, why=why)
