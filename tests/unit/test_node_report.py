"""What a node says it can do, and what is asked of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from control.bus.messages import Capability, NodeReport

GPU = Capability(
    device="nvenc:0",
    encoder="h264_nvenc",
    codec="h264",
    tier="cuda",
    bit_depths=(8,),
    min_width=146,
    min_height=50,
    max_width=4096,
    max_height=4096,
    sessions=8,
    usable=True,
)
CPU = Capability(device="cpu", encoder="libx264", codec="h264", tier="cpu", bit_depths=(8, 10), usable=True)


def report(*capabilities: Capability, refuses_cpu: bool = False) -> NodeReport:
    made = NodeReport(
        node="gpu-1",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        ffmpeg="9.0",
        capabilities=capabilities,
        refuses_cpu=refuses_cpu,
    )
    return NodeReport.model_validate(json.loads(json.dumps(made.model_dump(mode="json"))))


@pytest.mark.parametrize(
    ("encoder", "width", "height", "bit_depth", "can"),
    [
        ("h264_nvenc", 1280, 720, 8, True),
        ("h264_nvenc", 1280, 720, 10, False),
        ("h264_nvenc", 132, 234, 8, False),
        ("h264_nvenc", 7680, 4320, 8, False),
        ("libx264", 1280, 720, 10, True),
        ("h264_vaapi", 1280, 720, 8, False),
    ],
)
def test_a_rung_is_asked_for_by_encoder_size_and_depth(
    encoder: str, width: int, height: int, bit_depth: int, can: bool
) -> None:
    assert report(GPU, CPU).can(encoder, width=width, height=height, bit_depth=bit_depth) is can


def test_what_does_not_work_or_is_refused_cannot_be_had() -> None:
    broken = GPU.model_copy(update={"usable": False, "reason": "Cannot load libcuda.so.1"})
    assert not report(broken, CPU).can("h264_nvenc", width=1280, height=720)
    assert report(broken, CPU).can("libx264", width=1280, height=720)
    assert not report(broken, CPU, refuses_cpu=True).can("libx264", width=1280, height=720)
