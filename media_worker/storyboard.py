"""Sprite sheets and the WebVTT that says which part of which sheet shows which time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Final

from PIL import Image

from media_worker.keyframes import Picture

VTT: Final = "storyboard.vtt"
FOLDER: Final = "storyboard"
TILE: Final = 160
"""Long side of a tile, in pixels."""
ACROSS: Final = 10
DOWN: Final = 10
_CLOSEST_SECONDS: Final = 2
_FARTHEST_SECONDS: Final = 10
_TILES: Final = 200
EARLY: Final = Fraction(9, 10)
"""Part of the interval a keyframe may come after: those meant to be 2 s apart are 1.97 s apart in some recordings."""
_QUALITY: Final = 75


def interval_seconds(duration_seconds: float) -> float:
    """How far apart tiles are to be, a tenth less at least: about 200 for a recording, 2 to 10 s apart."""
    return min(max(duration_seconds / _TILES, _CLOSEST_SECONDS), _FARTHEST_SECONDS)


class Storyboard:
    """Takes pictures in order, writes a sheet as it fills, the WebVTT at the end. One sheet in memory."""

    def __init__(self, out: Path, size: tuple[int, int], duration_seconds: float) -> None:
        self._out = out
        self._size = size
        self._duration = Fraction(duration_seconds)
        self._apart = EARLY * Fraction(interval_seconds(duration_seconds))
        self._times: list[Fraction] = []
        self._sheet: Image.Image | None = None
        self.sheets: list[str] = []
        (out / FOLDER).mkdir(parents=True, exist_ok=True)

    @property
    def tiles(self) -> int:
        return len(self._times)

    def add(self, picture: Picture) -> None:
        """Take the next picture, unless it comes too soon after the last."""
        if self._times and picture.seconds - self._times[-1] < self._apart:
            return
        place = len(self._times) % (ACROSS * DOWN)
        if self._sheet is None:
            self._sheet = Image.new("RGB", (self._size[0] * ACROSS, self._size[1] * DOWN))
        tile = Image.fromarray(picture.rgb).resize(self._size, Image.Resampling.BOX)
        self._sheet.paste(tile, self._corner(place))
        self._times.append(picture.seconds)
        if place == ACROSS * DOWN - 1:
            self._write()

    def finish(self) -> None:
        """Write what is left, and the WebVTT."""
        self._write()
        (self._out / VTT).write_text(self._text(), encoding="utf-8")

    def _write(self) -> None:
        if self._sheet is None:
            return
        used = (len(self._times) - 1) % (ACROSS * DOWN) + 1
        rows, columns = -(-used // ACROSS), min(used, ACROSS)
        name = f"{FOLDER}/{len(self.sheets) + 1:03d}.jpg"
        shown = self._sheet.crop((0, 0, columns * self._size[0], rows * self._size[1]))
        shown.save(self._out / name, quality=_QUALITY, optimize=True)
        self.sheets.append(name)
        self._sheet = None

    def _corner(self, place: int) -> tuple[int, int]:
        return place % ACROSS * self._size[0], place // ACROSS * self._size[1]

    def _text(self) -> str:
        starts = [Fraction(0), *self._times[1:]]
        ends = [*starts[1:], max(self._duration, starts[-1] + Fraction(1, 1000))]
        lines = ["WEBVTT", ""]
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            sheet, place = divmod(number, ACROSS * DOWN)
            x, y = self._corner(place)
            lines += [
                f"{timestamp(start)} --> {timestamp(end)}",
                f"{FOLDER}/{sheet + 1:03d}.jpg#xywh={x},{y},{self._size[0]},{self._size[1]}",
                "",
            ]
        return "\n".join(lines)


def timestamp(seconds: Fraction) -> str:
    """WebVTT's `HH:MM:SS.mmm`."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
