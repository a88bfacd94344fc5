"""What a media node can do."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from control.bus.messages.base import Message

CPU_DEVICE: Final = "cpu"

Codec = Literal["h264", "hevc", "av1"]


class Capability(Message):
    """One way a node can encode on one device, as it was found by really encoding."""

    device: str = Field(examples=["nvenc:0", "vaapi:/dev/dri/renderD128", "cpu"])
    encoder: str = Field(examples=["h264_nvenc"])
    """What a rung is pinned to (`Rung.encoder`)."""
    codec: Codec
    tier: str = Field(examples=["cuda"])
    """How it decodes and scales; a chunk may change between tiers of one encoder, its init segment stays the same."""
    bit_depths: tuple[int, ...] = (8,)
    """Of the sources it takes; what it makes has 8 bits."""
    min_width: int = 2
    min_height: int = 2
    max_width: int = 16384
    max_height: int = 16384
    """The smallest and largest rungs it makes."""
    sessions: int | None = None
    """Encoders at a time on the device, all of the node's processes together: a chunk takes one a rung. None is any
    number."""
    usable: bool
    reason: str | None = None
    """Why it is not usable, one line."""


class NodeReport(Message):
    """What a media node can do, said at its start and with each heartbeat."""

    node: str
    """The host's name."""
    at: datetime
    """When it was made, UTC."""
    ffmpeg: str
    """Version of the ffmpeg it runs."""
    capabilities: tuple[Capability, ...]
    """Best first, those that are not usable too."""
    refuses_cpu: bool = False
    """It was told to make no chunk on its CPU: one pinned to a CPU encoder ends there as `encoder-unavailable`."""

    def can(self, encoder: str, *, width: int, height: int, bit_depth: int = 8) -> bool:
        """Whether a rung of `width` × `height` of a source of `bit_depth` can be made here by `encoder`."""
        return any(
            each.usable
            and each.encoder == encoder
            and bit_depth in each.bit_depths
            and each.min_width <= width <= each.max_width
            and each.min_height <= height <= each.max_height
            and not (self.refuses_cpu and each.device == CPU_DEVICE)
            for each in self.capabilities
        )
