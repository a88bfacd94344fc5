"""Every command line of every tier against the real ffmpeg: as far as the driver that is not here, and not a step less.

Where the machine has the driver, the encoders themselves are tried by `afterlive gpu-check`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from control.bus.messages import ChunkJob, Rung
from control.settings import MediaSettings
from media_worker.command import chunk_command
from media_worker.encoders.table import ENCODERS, Encoder
from media_worker.encoders.tiers import Device, Tier, Way
from media_worker.ffmpeg import ffmpeg_path
from pipelines.ladder import Step
from pipelines.plan import make_plan
from tests.unit.facts import info, video

FFMPEG = ffmpeg_path(MediaSettings(_env_file=None))
NODE = "/dev/dri/renderD199"
ADDRESSES = {"nvenc": "0", "vaapi": NODE, "cpu": ""}
LADDER = (Step(short_side=180, kbps=400, fast_kbps=600), Step(short_side=90, kbps=200, max_fps=30))
# What only a driver, or a device, can be missing.
DRIVER = re.compile(
    r"Cannot load libcuda\.so\.1|No VA display found|A hardware device reference is required"
    r"|Cannot load libnvidia-encode"
)
WRONG = re.compile(
    r"Option not found|Unrecognized option|No such filter|Error (setting|applying) option|Unable to parse"
    r"|Undefined constant|Unknown encoder|Error parsing (filterchain|a filter)|Missing argument",
    re.IGNORECASE,
)
GPU_WAYS = [
    pytest.param(encoder, tier, id=f"{encoder.name}-{tier.name}")
    for encoder in ENCODERS.values()
    if encoder.kind != "cpu"
    for tier in encoder.tiers
]
HARD: dict[str, dict[str, Any]] = {"fast": {"rate": 60}, "interlaced": {"interlaced": True}, "plain": {}}


def command(
    encoder: Encoder, tier: Tier, source: Path, folder: Path, kind: str = "plain", preset: str = "medium"
) -> list[str]:
    facts = dict(HARD[kind])
    recording = info(video(320, 180, facts.pop("rate", 30), 4, **facts))
    plan = make_plan(recording, MediaSettings(_env_file=None), LADDER)
    rungs = [rung.model_copy(update={"encoder": encoder.name}) for rung in plan.rungs]
    # A rung of another encoder beside it, as a picture too small for the card is made.
    small = rungs[-1].model_copy(update={"name": "small", "width": 64, "height": 36, "encoder": "libx264"})
    job = ChunkJob(
        replay_id="r", part="chunk-00000", source=str(source), prefix="r/", video=recording.video, chunk=plan.chunks[0],
        rungs=(*rungs, small), frame_rate=plan.frame_rate, gop_frames=plan.gop_frames,
        segment_frames=plan.segment_frames, preset=preset, threads=1,
    )  # fmt: skip
    return chunk_command(FFMPEG, job, f"file:{source}", folder, Way(tier, Device(tier.kind, ADDRESSES[tier.kind])))


def said(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0, "a device that nobody has must not work"
    return done.stderr


def without(arguments: Sequence[str], *names: str) -> list[str]:
    """Those options and their values taken out."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in names:
            skip = argument in names
            continue
        kept.append(argument)
    return kept


def graph_alone(arguments: list[str]) -> list[str]:
    """Without the device, so that ffmpeg comes to parse the graph and every output's options."""
    names = ("-init_hw_device", "-filter_hw_device", "-hwaccel", "-hwaccel_device", "-hwaccel_output_format")
    return without(arguments, *names)


def encoder_alone(arguments: list[str]) -> list[str]:
    """The options of the first output on pictures of main memory: ffmpeg opens the encoder with them."""
    output = arguments[arguments.index("-map") + 2 :]
    output = output[: next(at for at, each in enumerate(output) if each.endswith(".mp4")) + 1]
    return [FFMPEG, "-loglevel", "level+error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:d=1", *output]


@pytest.fixture(scope="module")
def source(clip: Callable[[str], Path]) -> Path:
    return clip("eight-seconds")


# What differs by source differs by tier alone.
@pytest.mark.parametrize(
    ("encoder", "tier", "kind"),
    [
        pytest.param(*way.values, kind, id=f"{way.id}-{kind}")
        for way in GPU_WAYS
        for kind in HARD
        if kind == "plain" or str(way.id).startswith("h264")
    ],
)
def test_ffmpeg_takes_every_command_up_to_the_driver(
    encoder: Encoder, tier: Tier, kind: str, source: Path, tmp_path: Path
) -> None:
    whole = command(encoder, tier, source, tmp_path, kind)
    complaint = said(whole)
    assert DRIVER.search(complaint), complaint
    assert not WRONG.search(complaint.replace("Error parsing global options", "")), complaint
    graph = said(graph_alone(whole))
    assert not WRONG.search(graph), graph
    # Parsed, and then: no device to upload to, or pictures of main memory where the device's are due.
    assert DRIVER.search(graph) or "Impossible to convert between the formats" in graph, graph


@pytest.mark.parametrize(
    "encoder", [each for each in ENCODERS.values() if each.kind != "cpu"], ids=lambda each: each.name
)
def test_ffmpeg_takes_every_option_of_an_encoder(encoder: Encoder, source: Path, tmp_path: Path) -> None:
    for preset in ("ultrafast", "veryfast", "slow", "placebo") if encoder.kind == "nvenc" else ("medium",):
        complaint = said(encoder_alone(command(encoder, encoder.tiers[0], source, tmp_path, preset=preset)))
        assert not WRONG.search(complaint), complaint
        # Its options were taken; then it wants the driver, or the pictures of a device.
        assert DRIVER.search(complaint) or re.search("Impossible to convert .*dst: vaapi", complaint, re.DOTALL), (
            complaint
        )


@pytest.mark.parametrize(("encoder", "tier"), GPU_WAYS)
def test_a_slip_in_a_command_is_found(encoder: Encoder, tier: Tier, source: Path, tmp_path: Path) -> None:
    """The two tests above can fail: options, values and filters that do not exist are told from a missing driver."""
    good = command(encoder, tier, source, tmp_path)
    scaler = "scale_cuda" if tier.kind == "nvenc" else "scale_vaapi"
    bad_filter = [each.replace(f"{scaler}=", f"{scaler}=wide=1:") for each in good]
    assert bad_filter != good
    assert WRONG.search(said(graph_alone(bad_filter)))
    alone = encoder_alone(good)
    rate = "-rc" if tier.kind == "nvenc" else "-rc_mode"
    bad_value = list(alone)
    bad_value[bad_value.index(rate) + 1] = "no-such-mode"
    assert WRONG.search(said(bad_value))
    assert WRONG.search(said([*alone[:-1], "-no_such_option", "1", alone[-1]]))


@pytest.mark.parametrize(
    "encoder", [each for each in ENCODERS.values() if each.kind == "cpu"], ids=lambda each: each.name
)
def test_limits_and_rates_of_the_cpu_encoders_are_real(encoder: Encoder, source: Path, tmp_path: Path) -> None:
    """The smallest rung of the table is made, and an odd frame rate."""
    recording = info(video(320, 180, Fraction(24000, 1001), 4))
    plan = make_plan(recording, MediaSettings(_env_file=None), LADDER)
    rung: Rung = plan.rungs[0].model_copy(
        update={
            "encoder": encoder.name,
            "width": max(encoder.min_width, 16),
            "height": max(encoder.min_height, 16),
            "name": "least",
        }
    )
    job = ChunkJob(
        replay_id="r", part="c", source=str(source), prefix="r/", video=recording.video, chunk=plan.chunks[0],
        rungs=(rung,), frame_rate=plan.frame_rate, gop_frames=plan.gop_frames, segment_frames=plan.segment_frames,
        preset="ultrafast", threads=1,
    )  # fmt: skip
    done = subprocess.run(
        chunk_command(FFMPEG, job, f"file:{source}", tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "least.mp4").stat().st_size > 1000
