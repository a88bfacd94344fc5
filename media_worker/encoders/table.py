"""Video encoders as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from control.bus.messages import Codec, Rung
from control.errors import ConfigurationError
from media_worker.encoders import options
from media_worker.encoders.options import Options
from media_worker.encoders.tiers import TIERS, Kind, Tier


@dataclass(frozen=True)
class Encoder:
    """One row: ffmpeg's name of it, and the options that make `rung` with an IDR every `gop` of its frames."""

    name: str
    codec: Codec
    kind: Kind
    options: Callable[[Rung, int, str, int], Options]
    """(rung, GOP in the rung's frames, x264 preset, threads) → output options, without leading dashes."""
    min_width: int = 2
    min_height: int = 2
    max_side: int = 16384
    """Of what it makes; a card may do less, which its driver says when it is asked."""

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Best first."""
        return TIERS[self.kind]

    def fits(self, rung: Rung) -> bool:
        """Whether the rung is of a size it makes."""
        small = rung.width < self.min_width or rung.height < self.min_height
        return not small and max(rung.width, rung.height) <= self.max_side


def _table(rows: Iterable[Encoder]) -> Mapping[str, Encoder]:
    return {row.name: row for row in rows}


# Sizes of NVENC: NVIDIA's Video Encode and Decode Support Matrix and what the drivers answer (145 × 49 and less is
# refused for H.264, 129 × 33 for HEVC); of VAAPI: what the drivers of Intel and AMD have in common.
ENCODERS: Final = _table(
    (
        Encoder("h264_nvenc", "h264", "nvenc", options.h264_nvenc, min_width=146, min_height=50, max_side=4096),
        Encoder("h264_vaapi", "h264", "vaapi", options.h264_vaapi, min_width=128, min_height=128, max_side=4096),
        Encoder("libx264", "h264", "cpu", options.x264),
        Encoder("hevc_nvenc", "hevc", "nvenc", options.hevc_nvenc, min_width=130, min_height=34, max_side=8192),
        Encoder("hevc_vaapi", "hevc", "vaapi", options.hevc_vaapi, min_width=130, min_height=128, max_side=8192),
        Encoder("libx265", "hevc", "cpu", options.x265, min_width=16, min_height=16),
        Encoder("av1_nvenc", "av1", "nvenc", options.av1_nvenc, min_width=192, min_height=128, max_side=8192),
        Encoder("av1_vaapi", "av1", "vaapi", options.av1_vaapi, min_width=256, min_height=128, max_side=8192),
        Encoder("libsvtav1", "av1", "cpu", options.svt_av1, min_width=64, min_height=64),
    )
)


def encoder(name: str) -> Encoder:
    """The row of `name`. Raises ConfigurationError."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise ConfigurationError(setting="encoder", reason=f"{name!r} is none of {', '.join(ENCODERS)}") from None
