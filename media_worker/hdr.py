"""HDR pictures made viewable, in NumPy: PyAV's libavfilter comes without zscale.

Sources: SMPTE ST 2084 (PQ), ITU-R BT.2100-2 (HLG), ITU-R BT.2087-0 (BT.2020 → BT.709), Hable's filmic curve.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control.bus.messages import VideoTrack

Floats = NDArray[np.floating[Any]]

_HLG: Final = "18"  # ITU-T H.273, table 3
_WHITE_NITS: Final = 100.0  # what the tone-mapper of the video takes as SDR's white (zscale's npl)
_HLG_PEAK_NITS: Final = 1000.0
_PEAK_NITS: Final = 1000.0  # brighter is white
_TO_709: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_BAND_LINES: Final = 32
_HLG_SYSTEM_GAMMA: Final = 1.2  # of a display of 1,000 nits


def to_sdr(rgb48: NDArray[np.uint16], video: VideoTrack) -> NDArray[np.uint8]:
    """Height × width × 3 of PQ or HLG at BT.2020, 16 bits → the same of sRGB-like SDR, 8 bits."""
    light = _light(video.color_transfer == _HLG)
    white = float(_hable(np.array(_PEAK_NITS / _WHITE_NITS)))
    out = np.empty(rgb48.shape, dtype=np.uint8)
    # In bands: as numbers of four bytes, several times over, a whole picture would take more than decoding it.
    for top in range(0, len(rgb48), _BAND_LINES):
        band = slice(top, top + _BAND_LINES)
        mapped = _hable(np.clip(light[rgb48[band]] @ _TO_709.T, 0.0, None)) / white
        out[band] = np.clip(mapped, 0.0, 1.0) ** (1 / 2.2) * 255.0 + 0.5
    return out


@lru_cache(maxsize=2)
def _light(hlg: bool) -> Floats:
    """Linear light of each of the 65,536 signals; 1 is SDR's white."""
    signal = np.linspace(0.0, 1.0, 1 << 16)
    return ((_hlg(signal) if hlg else _pq(signal)) / _WHITE_NITS).astype(np.float32)


def _pq(signal: Floats) -> Floats:
    """Nits of a PQ signal."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = np.power(signal, 1 / m2)
    return np.asarray(10_000.0 * np.power(np.maximum(power - c1, 0.0) / (c2 - c3 * power), 1 / m1))


def _hlg(signal: Floats) -> Floats:
    """Nits of an HLG signal on a display of 1,000 nits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3.0, (np.exp((signal - c) / a) + b) / 12.0)
    # To each colour by itself, not to the luma: as zscale does for the video, which the pictures must look like.
    return np.asarray(_HLG_PEAK_NITS * scene**_HLG_SYSTEM_GAMMA)


def _hable(light: Floats) -> Floats:
    return np.asarray((light * (0.15 * light + 0.05) + 0.004) / (light * (0.15 * light + 0.5) + 0.06) - 0.004 / 0.06)
