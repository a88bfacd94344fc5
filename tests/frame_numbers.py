"""Every frame of a test clip carries its own number, painted so that it can be read back after scaling and encoding.

Along the bottom quarter run twelve cells: a white one, ten bits (the highest first; white is 1), a black one. The
two at the ends say what white and black have become on the way, and that the picture is upright.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 10
_CELLS: Final = BITS + 2
_LEAST_CONTRAST: Final = 60.0
_UNDECIDED: Final = (0.35, 0.65)


def paint_numbers(first: int = 0) -> str:
    """An ffmpeg filter chain that paints the numbers `first`, `first` + 1, … on the frames (8-bit 4:2:0 or RGB)."""
    band = "y=ih*3/4:h=ih/4+1:t=fill"
    boxes = [f"drawbox=x=0:w=iw:{band}:c=black", f"drawbox=x=0:w=iw/{_CELLS}:{band}:c=white"]
    for bit in range(BITS):
        place = BITS - bit
        when = rf"bitand(n+{first}\,{1 << bit})"
        boxes.append(f"drawbox=x=iw*{place}/{_CELLS}:w=iw/{_CELLS}:{band}:c=white:enable={when}")
    return ",".join(boxes)


def read_frame_number(picture: NDArray[Any]) -> int:
    """The number painted on `picture` (height × width, or height × width × 3; 0 to 255).

    Raises ValueError where there is none to be read: upside down, turned, torn, or two frames blended.
    """
    grey = picture.astype(np.float64)
    if grey.ndim == 3:
        grey = grey.mean(axis=2)
    height, width = grey.shape
    band = grey[round(height * 0.80) : max(round(height * 0.96), round(height * 0.80) + 1)]
    cell = width / _CELLS
    levels = np.array(
        [
            band[:, round((i + 0.3) * cell) : max(round((i + 0.7) * cell), round((i + 0.3) * cell) + 1)].mean()
            for i in range(_CELLS)
        ]
    )
    white, black = levels[0], levels[-1]
    if white - black < _LEAST_CONTRAST:
        raise ValueError(f"no frame number: its white is {white:.0f}, its black {black:.0f}")
    shares = (levels[1:-1] - black) / (white - black)
    low, high = _UNDECIDED
    if bool(((shares > low) & (shares < high)).any()):
        raise ValueError(f"the frame number cannot be read: {np.round(shares, 2).tolist()}")
    return int("".join("1" if share > 0.5 else "0" for share in shares), 2)
