"""Every tier's graph on pictures of a device, from decoder to encoder: each filter between must take them as they are.

The device is Mesa's Vulkan on the CPU, whose upload, scaler and download stand for those of CUDA and VAAPI. What stands
between them (grid, splits, every second frame, marks) is the real graph.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from control.bus.messages import ChunkJob, Rung
from control.settings import MediaSettings
from media_worker.command import chunk_command
from media_worker.encoders.table import ENCODERS
from media_worker.encoders.tiers import TIERS, Device, Tier, Way
from media_worker.ffmpeg import ffmpeg_path
from media_worker.segments import split_video
from tests.frame_numbers import read_frame_number
from tests.gpu_stand_in import on_the_cpu
from tests.production import LADDER, Production, decode_video, media_settings

pytestmark = pytest.mark.slow  # a GPU on the CPU takes its time
FFMPEG = ffmpeg_path(MediaSettings(_env_file=None))
DEVICE = ("-init_hw_device", "vulkan=gpu:0", "-filter_hw_device", "gpu")
GPU_TIERS = [tier for kind in ("nvenc", "vaapi") for tier in TIERS[kind]]


@pytest.fixture(scope="module", autouse=True)
def _vulkan() -> None:
    picture = ("-f", "lavfi", "-i", "testsrc2=d=0.1", "-vf", "format=yuv420p,hwupload,hwdownload,format=yuv420p")
    asked = subprocess.run([FFMPEG, *DEVICE, *picture, "-f", "null", "-"], capture_output=True, timeout=60, check=False)
    if asked.returncode:
        pytest.fail("no Vulkan device on this machine: apt-get install mesa-vulkan-drivers")


def on_vulkan(arguments: list[str], tier: Tier) -> list[str]:
    """The same command with Vulkan's filters in place of the device's, and libx264 behind a download."""
    graph = arguments[arguments.index("-filter_complex") + 1]
    graph = re.sub(r"scale_(?:cuda|vaapi)=[^\[]*?h=(\d+)[^\[]*?w=(\d+)", r"libplacebo=w=\2:h=\1:format=yuv420p", graph)
    graph = graph.replace("hwupload_cuda", "hwupload").replace("nv12", "yuv420p")
    if tier.decodes:
        graph = graph.replace("[0:0]", "[0:0]format=pix_fmts=yuv420p,hwupload,", 1)
    made = on_the_cpu(arguments)
    for at in [number + 1 for number, each in enumerate(made) if each == "-map"]:
        pad = made[at]
        if _is_on_device(arguments, pad):
            graph += f";{pad}hwdownload,format=yuv420p[down{at}]"
            made[at] = f"[down{at}]"
    made[made.index("-filter_complex") + 1] = graph
    return [*made, *DEVICE]


def _is_on_device(arguments: list[str], pad: str) -> bool:
    output = arguments[arguments.index(pad) :]
    return ENCODERS[output[output.index("-c:v") + 1]].kind != "cpu"


def job(made: Production, tier: Tier) -> ChunkJob:
    """Its rungs, and a small one for the encoder of the CPU."""
    encoder = next(row.name for row in ENCODERS.values() if row.kind == tier.kind)
    planned = made.chunk_job(1)
    last = planned.rungs[-1]
    small: Rung = last.model_copy(update={"name": "small", "width": 64, "height": 36, "encoder": "libx264"})
    rungs = (*(rung.model_copy(update={"encoder": encoder}) for rung in planned.rungs), small)
    return planned.model_copy(update={"rungs": rungs})


@pytest.mark.parametrize("tier", GPU_TIERS, ids=lambda tier: tier.name)
def test_pictures_of_a_device_go_through_the_whole_graph(
    tier: Tier, clip: Callable[[str], Path], tmp_path: Path
) -> None:
    source = clip("eight-seconds")
    made = Production(source, tmp_path, media_settings(tmp_path, source.parent), LADDER)
    chunk = job(made, tier)
    # Longer than the recording: its last picture stands, as it does where a recording breaks off.
    chunk = chunk.model_copy(update={"chunk": chunk.chunk.model_copy(update={"frames": 90})})
    way = Way(tier, Device(tier.kind, "0"))
    command = on_vulkan(chunk_command(FFMPEG, chunk, f"file:{source}", tmp_path, way), tier)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for rung in chunk.rungs:
        track = split_video(tmp_path / f"{rung.name}.mp4", rung, chunk, tmp_path / "finished" / rung.name)
        assert track.frames == 90
    for rung in chunk.rungs[:2]:
        pictures, _ = decode_video(tmp_path / f"{rung.name}.mp4")
        assert [read_frame_number(picture) for picture in pictures] == [*range(180, 240), *[239] * 30]
