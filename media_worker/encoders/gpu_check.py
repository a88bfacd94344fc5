"""`afterlive gpu-check`: a GPU node tried out in a minute, as a report to paste into an issue."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from control.bus.messages import Chunk, ChunkJob, Rung, VideoTrack
from control.bus.work import Work
from control.errors import AfterliveError
from control.settings import MediaSettings
from media_worker.command import chunk_command
from media_worker.encoders import shared
from media_worker.encoders.devices import gpus, unreadable_nodes
from media_worker.encoders.failures import cause_of
from media_worker.encoders.probing import Probed, ffmpeg_version, find_out, possible
from media_worker.encoders.table import Encoder
from media_worker.encoders.tiers import Device, Way
from media_worker.ffmpeg import ffmpeg_path
from media_worker.probe import probe as look_at
from media_worker.runner import run
from media_worker.segments import split_video

_RATE: Final = 30
_SECONDS: Final = 8
_GOP: Final = 60
_LIMIT_SECONDS: Final = 40.0
_SIDES: Final = ((1280, 720, 3000), (854, 480, 1100), (640, 360, 400))


@dataclass(frozen=True)
class Row:
    """One way of one encoder."""

    encoder: str
    device: str
    tier: str
    bit_depths: tuple[int, ...]
    first_seconds: float
    """Of the first encode, driver and all."""
    realtime: float | None
    """Seconds of 720p30 into 720p, 480p and 360p made a second; None where it was not tried or failed."""
    reason: str | None
    same: bool | None = None
    """Whether its init segment is the one of the encoder's best tier; None where there is nothing to compare."""


@dataclass
class Found:
    """The report."""

    at: datetime
    lines: list[tuple[str, str]] = field(default_factory=list)
    """What the machine is: name and value."""
    rows: list[Row] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What must be mended, a line each."""
    gpus: int = 0


def check(settings: MediaSettings) -> Iterator[Row | Found]:
    """Each row as soon as it is there, the whole report last. Raises ConfigurationError."""
    devices = gpus(settings)
    found = Found(datetime.now(UTC), list(_machine(settings, devices)), gpus=len(devices))
    found.wrong += [f"{node} may not be used by this user (group render)" for node in unreadable_nodes()]
    inits: dict[tuple[str, str], str] = {}
    with TemporaryDirectory(dir=shared.folder(settings)) as name:
        folder = Path(name)
        clip = _clip(settings, folder)
        video = look_at(str(clip), f"file:{clip}", settings, Work("gpu-check", 60)).info.video
        for way, row in possible(settings):
            probed = find_out(settings, way, row, fresh=True)
            made = _row(settings, way, row, probed, clip, video, folder, inits)
            found.rows.append(made)
            yield made
        for device in devices:
            found.sessions.append(_sessions(settings, device, clip, video, folder, found))
    for device in devices:
        if not any(each.bit_depths for each in found.rows if each.device == device.name):
            reason = next(
                (each.reason for each in found.rows if each.device == device.name), "no encoder is set for it"
            )
            found.wrong.append(f"{device.name} does not encode: {reason}")
    found.wrong += [
        f"{each.encoder} on {each.device}: {each.tier} gives another init segment than its best tier"
        for each in found.rows
        if each.same is False
    ]
    yield found


def _machine(settings: MediaSettings, devices: list[Device]) -> Iterator[tuple[str, str]]:
    yield "afterlive", _own_version()
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    yield "ffmpeg", ffmpeg_version(settings)
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        yield "NVIDIA", driver.read_text().splitlines()[0].removeprefix("NVRM version:").strip()
    yield "GPUs", ", ".join(f"{device.name} {device.label}".strip() for device in devices) or "none found"
    yield "settings", f"encoders {', '.join(settings.encoders)}; {settings.sessions_per_device} sessions a device"


def _row(
    settings: MediaSettings, way: Way, row: Encoder, probed: Probed, clip: Path, video: VideoTrack, folder: Path,
    inits: dict[tuple[str, str], str],
) -> Row:  # fmt: skip
    speed, reason, same = None, probed.reason, None
    if probed.usable:
        best = inits.setdefault((row.name, way.device.name), probed.init_sha256)
        same = None if len(row.tiers) == 1 else best == probed.init_sha256
        rungs = tuple(_rung(row.name, *side) for side in _SIDES)
        try:
            speed = round(_SECONDS / _encode(settings, way, rungs, clip, video, folder), 1)
        except AfterliveError as error:
            reason = f"720p: {cause_of(error)}"
    return Row(
        row.name, way.device.name, way.tier.name, probed.bit_depths, probed.seconds, speed, reason, same=same
    )  # fmt: skip


def _sessions(
    settings: MediaSettings, device: Device, clip: Path, video: VideoTrack, folder: Path, found: Found
) -> str:
    """As many encoders at a time, in one process, as the settings let the workers start."""
    usable = [
        (way, row)
        for way, row in possible(settings)
        if way.device == device
        and any(
            (e.encoder, e.device, e.tier) == (row.name, device.name, way.tier.name) and e.bit_depths for e in found.rows
        )
    ]
    wanted = settings.sessions_per_device
    if not usable:
        return f"{device.name}: not tried"
    way, row = usable[0]
    rungs = tuple(_rung(row.name, 256, 256, 200, name=f"session-{number}") for number in range(wanted))
    try:
        _encode(settings, way, rungs, clip, video, folder)
    except AfterliveError as error:
        found.wrong.append(f"{device.name} does not run {wanted} encoders at a time: {cause_of(error)}")
        return f"{device.name}: fewer than {wanted} at a time; set AFTERLIVE_MEDIA_SESSIONS_PER_DEVICE"
    return f"{device.name}: {wanted} at a time"


def _encode(
    settings: MediaSettings, way: Way, rungs: tuple[Rung, ...], clip: Path, video: VideoTrack, folder: Path
) -> float:
    """Seconds it took; what came out is checked like any chunk."""
    frames = _SECONDS * _RATE
    job = ChunkJob(
        replay_id="gpu-check", part=str(way), source=str(clip), prefix="gpu-check/", video=video,
        chunk=Chunk(index=0, first_frame=0, frames=frames, first_segment=0, entry_pts=None), rungs=rungs,
        frame_rate=Fraction(_RATE), gop_frames=_GOP, segment_frames=_GOP, preset=settings.preset, threads=1,
    )  # fmt: skip
    with TemporaryDirectory(dir=folder) as name:
        out = Path(name)
        command = chunk_command(ffmpeg_path(settings), job, f"file:{clip}", out, way)
        took = run(command, Work("gpu-check", _LIMIT_SECONDS), total_frames=frames, gives_way=False)
        for rung in rungs:
            split_video(out / f"{rung.name}.mp4", rung, job, out / rung.name)
    return max(took, 0.001)


def _rung(encoder: str, width: int, height: int, kbps: int, name: str | None = None) -> Rung:
    return Rung(
        name=name or f"{height}p", width=width, height=height, frame_rate=Fraction(_RATE), video_kbps=kbps,
        max_kbps=kbps * 3 // 2, buffer_kbits=kbps * 2, timescale=_RATE * 1000, encoder=encoder,
    )  # fmt: skip


def _clip(settings: MediaSettings, folder: Path) -> Path:
    """720p with something in it for an encoder to do."""
    path = folder / "clip.mp4"
    picture = f"testsrc2=size=1280x720:rate={_RATE},noise=alls=12:allf=t,trim=end_frame={_SECONDS * _RATE}"
    command = [
        ffmpeg_path(settings), "-hide_banner", "-nostdin", "-loglevel", "level+error", "-y", "-f", "lavfi",
        "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", str(_GOP), str(path),
    ]  # fmt: skip
    run(command, Work("gpu-check", 120), total_frames=_SECONDS * _RATE, gives_way=False)
    return path


def _own_version() -> str:
    try:
        return version("afterlive")
    except PackageNotFoundError:
        return "not installed"


def as_markdown(found: Found) -> str:
    """The report as text, to paste."""
    lines = [f"### afterlive gpu-check, {found.at:%Y-%m-%d %H:%M} UTC", ""]
    lines += [f"- {name}: {value}" for name, value in found.lines]
    lines += ["", "| encoder | device | tier | 8 bit | 10 bit | first, s | × realtime | same init | why not |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for each in found.rows:
        depths = ("yes" if depth in each.bit_depths else "no" for depth in (8, 10))
        same = {True: "yes", False: "NO", None: ""}[each.same]
        cells = (
            each.encoder, each.device, each.tier, *depths, f"{each.first_seconds:.2f}" if each.bit_depths else "",
            "" if each.realtime is None else f"{each.realtime:.1f}", same, (each.reason or "").replace("|", "/"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- sessions: {each}" for each in found.sessions), *(f"- WRONG: {each}" for each in found.wrong)]
    if not found.gpus:
        lines.append("- there is no GPU here")
    elif not found.wrong:
        lines.append("- all is well")
    return "\n".join(lines)


def timed(settings: MediaSettings) -> Iterator[Row | Found]:
    """As `check`, its own time in the report."""
    began = time.monotonic()
    for each in check(settings):
        if isinstance(each, Found):
            each.lines.append(("took", f"{time.monotonic() - began:.0f} s"))
        yield each
