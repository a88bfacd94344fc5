"""The tiers an encoder runs in: where a picture is decoded and scaled, and how it gets to the encoder.

A tier is data; `media_worker.command` builds the command from it. Sources: ffmpeg's documentation of hardware
acceleration, `scale_cuda`, `scale_vaapi`, `hwupload`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from control.bus.messages import CPU_DEVICE, VideoTrack

Kind = Literal["nvenc", "vaapi", "cpu"]
Filter = tuple[str, Mapping[str, Any]]
GPU: Final = "gpu"
"""What the device is called within a command."""
_FULL_RANGE: Final = "2"  # ITU-T H.273, as libavutil counts


@dataclass(frozen=True)
class Tier:
    """One row. The filters of a tier without a GPU are empty."""

    name: str
    kind: Kind
    decodes: bool = False
    """Whether the device decodes too: pictures never leave it."""
    input_options: Mapping[str, Any] = field(default_factory=dict)
    """Of the source, for the device to decode it."""
    upload: tuple[Filter, ...] = ()
    """From main memory to the device."""
    scale: tuple[str, Mapping[str, Any]] = ("scale", {})
    """The device's scaler, and what it is always told; width and height are `w` and `h`."""
    download: tuple[Filter, ...] = ()
    """From the device to main memory, for a rung another encoder makes."""

    def takes(self, video: VideoTrack) -> bool:
        """Whether it can make anything of `video` at all, whatever the device. What only filters of the CPU do (turn,
        deinterlace, tone-map, bring to limited range) is done by a tier that decodes on the CPU."""
        plain = not (video.rotation or video.interlaced or video.hdr or video.color_range == _FULL_RANGE)
        return plain or not self.decodes


CPU: Final = Tier("cpu", "cpu")

_CUDA_SCALE: Final = ("scale_cuda", {"interp_algo": "bicubic", "format": "yuv420p"})
_CUDA_DOWNLOAD: Final[tuple[Filter, ...]] = (("hwdownload", {}), ("format", {"pix_fmts": "yuv420p"}))
CUDA: Final = Tier(
    "cuda",
    "nvenc",
    decodes=True,
    input_options={
        "hwaccel": "cuda",
        "hwaccel_device": GPU,
        # Pictures stay on the card; without it each would be copied to main memory and back.
        "hwaccel_output_format": "cuda",
        # The turning filters are the CPU's.
        "noautorotate": None,
        # Frames are held by `fps`, `tpad` and the queues between threads; the decoder's own pool is of a fixed size.
        "extra_hw_frames": 8,
    },
    scale=_CUDA_SCALE,
    download=_CUDA_DOWNLOAD,
)
CUDA_UPLOAD: Final = Tier(
    "cuda-upload",
    "nvenc",
    upload=(("hwupload_cuda", {}),),
    scale=_CUDA_SCALE,
    download=_CUDA_DOWNLOAD,
)

_VAAPI_SCALE: Final = ("scale_vaapi", {"mode": "hq", "format": "nv12"})
_VAAPI_DOWNLOAD: Final[tuple[Filter, ...]] = (
    ("hwdownload", {}),
    ("format", {"pix_fmts": "nv12"}),
    ("format", {"pix_fmts": "yuv420p"}),
)
VAAPI: Final = Tier(
    "vaapi",
    "vaapi",
    decodes=True,
    input_options={
        "hwaccel": "vaapi",
        "hwaccel_device": GPU,
        "hwaccel_output_format": "vaapi",
        "noautorotate": None,
        "extra_hw_frames": 16,
    },
    scale=_VAAPI_SCALE,
    download=_VAAPI_DOWNLOAD,
)
VAAPI_UPLOAD: Final = Tier(
    "vaapi-upload",
    "vaapi",
    # VAAPI's pools are of a fixed size too: room for all rungs' encoders.
    upload=(("format", {"pix_fmts": "nv12"}), ("hwupload", {"extra_hw_frames": 64})),
    scale=_VAAPI_SCALE,
    download=_VAAPI_DOWNLOAD,
)
TIERS: Final[Mapping[Kind, tuple[Tier, ...]]] = {
    "nvenc": (CUDA, CUDA_UPLOAD),
    "vaapi": (VAAPI, VAAPI_UPLOAD),
    "cpu": (CPU,),
}
"""Of each kind of device, best first."""


@dataclass(frozen=True)
class Device:
    """Something that encodes."""

    kind: Kind
    address: str = ""
    """Of NVENC the card's number, of VAAPI the path of its render node."""
    label: str = ""
    """What a person calls it, such as the card's model."""

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.address}" if self.address else self.kind

    @property
    def global_options(self) -> tuple[str, ...]:
        """Open the device once, for decoder, filters and encoder together, and make it the filters' own."""
        if self.kind == "cpu":
            return ()
        opened = "cuda" if self.kind == "nvenc" else "vaapi"
        return ("-init_hw_device", f"{opened}={GPU}:{self.address}", "-filter_hw_device", GPU)


CPU_ITSELF: Final = Device("cpu")
assert CPU_ITSELF.name == CPU_DEVICE  # noqa: S101  the bus and this table mean the same


@dataclass(frozen=True)
class Way:
    """A tier on a device."""

    tier: Tier = CPU
    device: Device = CPU_ITSELF

    def __str__(self) -> str:
        return f"{self.tier.name} on {self.device.name}" if self.device.kind != "cpu" else "cpu"


ON_CPU: Final = Way()
