"""Media nodes as they report, without the devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, cast

from control.bus.messages import CPU_DEVICE, Capability, Codec, NodeReport


def capability(encoder: str = "h264_nvenc", **changes: Any) -> Capability:
    codec, _, family = encoder.partition("_")
    facts: dict[str, Any] = {
        "device": f"{family}:0",
        "encoder": encoder,
        "codec": cast(Codec, codec),
        "tier": "all",
        "max_width": 4096,
        "max_height": 4096,
        "sessions": 8,
        "usable": True,
    }
    return Capability.model_validate(facts | changes)


CPU: Final = Capability(device=CPU_DEVICE, encoder="libx264", codec="h264", tier="cpu", bit_depths=(8, 10), usable=True)


def node(name: str, *capabilities: Capability, refuses_cpu: bool = False) -> NodeReport:
    """One that said so just now."""
    return NodeReport(node=name, at=datetime.now(UTC), ffmpeg="9.0", capabilities=capabilities, refuses_cpu=refuses_cpu)
