"""Whether an encoder works on a device in a tier: by making a chunk of two GOPs that way, the whole of it, and checking
what came out like any other chunk. A compiled-in encoder, and CUDA itself, prove nothing.

What was found is kept in the node's folder, for all its workers, until ffmpeg or the driver is another, or it is old.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from control.bus.messages import Chunk, ChunkJob, Rung
from control.bus.work import Work
from control.errors import AfterliveError, DeadlineExceeded, EncoderBusy, EncoderFailed
from control.settings import MediaSettings
from media_worker.command import chunk_command
from media_worker.encoders import sessions, shared
from media_worker.encoders.devices import gpus
from media_worker.encoders.failures import Failure, cause_of, failure_of
from media_worker.encoders.table import Encoder, encoder
from media_worker.encoders.tiers import CPU_ITSELF, Way
from media_worker.ffmpeg import ffmpeg_path
from media_worker.probe import probe as look_at
from media_worker.runner import run
from media_worker.segments import split_video

log = logging.getLogger("afterlive.encoders")
LIMIT_SECONDS: Final = 10.0
_CPU_LIMIT_SECONDS: Final = 60.0  # a busy machine is not a broken one
_GOOD_SECONDS: Final = 24 * 3600.0
_BAD_SECONDS: Final = 600.0  # a driver comes back
_BUSY_SECONDS: Final = 60.0
_BUSY_TRIES: Final = 3
_DEPTHS: Final = (8, 10)
# Two GOPs: an encoder that gets the first IDR right may still put the second elsewhere.
_GOP: Final = 30
_FRAMES: Final = 2 * _GOP
# Scaled from a larger one. NVENC refuses H.264 of less than 146 pixels, some drivers AV1 of less than 256.
_SOURCE_SIDE: Final = 320
_RUNG: Final = Rung(
    name="probe", width=256, height=256, frame_rate=Fraction(30), video_kbps=300, max_kbps=450, buffer_kbits=600,
    profile="main", timescale=30_000,
)  # fmt: skip
_CLIPS: Final = {
    8: ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    # What 10-bit recordings come in, and decoders of GPUs know; H.264 of 10 bits is none of the two.
    10: ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error"),
}


@dataclass(frozen=True)
class Probed:
    """What came out."""

    bit_depths: tuple[int, ...] = ()
    """Of the sources it took; empty: it does not work."""
    reason: str | None = None
    """Why it does not work, or not with all of them."""
    init_sha256: str = ""
    """Of what was made of 8 bits."""
    seconds: float = 0.0
    """The first one took, driver and all."""
    at: float = 0.0
    """Unix time."""
    busy: bool = False
    """Nothing was found out: the device had no free session."""

    @property
    def usable(self) -> bool:
        return 8 in self.bit_depths


def possible(settings: MediaSettings) -> list[tuple[Way, Encoder]]:
    """Every way of every encoder this node may use, best first. Raises ConfigurationError."""
    devices = [*gpus(settings), CPU_ITSELF]
    rows = [encoder(name) for name in settings.encoders]
    return [
        (Way(tier, device), row) for row in rows for tier in row.tiers for device in devices if device.kind == row.kind
    ]


def find_out(settings: MediaSettings, way: Way, row: Encoder, *, fresh: bool = False) -> Probed:
    """What is known of it; where nothing is, or with `fresh`, it is tried, and kept."""
    with shared.locked(shared.folder(settings) / "probing.lock"):
        return _cached(settings, way, row, fresh=fresh)


def known(settings: MediaSettings, way: Way, row: Encoder, *, aged: bool = False) -> Probed | None:
    """What was found of it, where that still holds, or (`aged`) whenever it was; nothing is tried."""
    try:
        kept = json.loads(_cache(settings, way, row).read_text())
        found = Probed(**(kept["found"] | {"bit_depths": tuple(kept["found"]["bit_depths"])}))
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not there, or another version's
    lasts = _BUSY_SECONDS if found.busy else _GOOD_SECONDS if found.usable else _BAD_SECONDS
    fits = kept["of"] == _state(settings, way)
    return found if fits and (aged or 0 <= time.time() - found.at < lasts) else None


def probe(settings: MediaSettings, way: Way, row: Encoder) -> Probed:
    """Try it now."""
    made: list[int] = []
    reason, sha, seconds, busy = None, "", 0.0, False
    for depth in _DEPTHS:
        try:
            began = time.monotonic()
            init = _make(settings, way, row, depth)
            if depth == 8:
                sha, seconds = init, round(time.monotonic() - began, 3)
            made.append(depth)
        except DeadlineExceeded:
            reason = reason or f"{depth} bits: not done within {_limit(way):.0f} s"
        except AfterliveError as error:
            reason = reason or f"{depth} bits: {cause_of(error)}"
            busy = busy or isinstance(error, EncoderBusy) or failure_of(error) is Failure.BUSY
        if depth not in made and depth == 8:
            break
    return Probed(tuple(made), reason, sha, seconds, round(time.time(), 3), busy)


def _cached(settings: MediaSettings, way: Way, row: Encoder, *, fresh: bool) -> Probed:
    if not fresh and (found := known(settings, way, row)) is not None:
        return found
    found = probe(settings, way, row)
    if found.busy and not fresh and (before := known(settings, way, row, aged=True)) is not None and before.usable:
        return before  # a card at work is not a broken one
    kept = {"of": _state(settings, way), "found": asdict(found)}
    shared.replace(_cache(settings, way, row), json.dumps(kept))
    if found.usable:
        log.info("%s works: %s, sources of %s bits", row.name, way, " and ".join(map(str, found.bit_depths)))
    else:
        log.warning("%s does not work: %s: %s", row.name, way, found.reason)
    return found


def _make(settings: MediaSettings, way: Way, row: Encoder, depth: int) -> str:
    """Make the chunk; the hash of its init segment. Raises as making a chunk does."""
    clip = _clip(settings, depth)
    address = f"file:{clip}"
    # Long: what a machine under load needs to read its own small file says nothing of an encoder.
    video = look_at(str(clip), address, settings, Work("probe", 60)).info.video
    rung = _RUNG.model_copy(update={"encoder": row.name})
    job = ChunkJob(
        replay_id="probe", part=f"{row.name}-{depth}", source=str(clip), prefix="probe/", video=video,
        chunk=Chunk(index=0, first_frame=0, frames=_FRAMES, first_segment=0, entry_pts=None), rungs=(rung,),
        frame_rate=_RUNG.frame_rate, gop_frames=_GOP, segment_frames=_FRAMES, preset=settings.preset, threads=1,
    )  # fmt: skip
    for left in reversed(range(_BUSY_TRIES)):
        try:
            return _try(settings, way, job, address)
        except (EncoderBusy, EncoderFailed) as error:
            if not left or not (isinstance(error, EncoderBusy) or failure_of(error) is Failure.BUSY):
                raise
            time.sleep(1.0)
    raise AssertionError("the last try returns or raises")


def _try(settings: MediaSettings, way: Way, job: ChunkJob, address: str) -> str:
    (rung,) = job.rungs
    with TemporaryDirectory(dir=shared.folder(settings)) as name, ExitStack() as held:
        if way.device.kind != "cpu" and not held.enter_context(sessions.take(settings, way.device.name, 1)):
            raise EncoderBusy(encoder=rung.encoder, reason="all its sessions are in use")
        folder = Path(name)
        command = chunk_command(ffmpeg_path(settings), job, address, folder, way)
        work = Work(f"probe of {rung.encoder}", _limit(way))
        # Not idle: on a busy machine it would be late, and a late encoder is taken for a broken one.
        run(command, work, total_frames=_FRAMES, gives_way=False)
        return split_video(folder / f"{rung.name}.mp4", rung, job, folder / "made").init_sha256


def _limit(way: Way) -> float:
    return LIMIT_SECONDS if way.device.kind != "cpu" else _CPU_LIMIT_SECONDS


def _clip(settings: MediaSettings, depth: int) -> Path:
    """A recording of two GOPs of that many bits, made once. Raises EncoderFailed where ffmpeg cannot make it."""
    path = shared.folder(settings) / f"probe-{depth}-bits.mp4"
    if not path.exists():
        part = path.with_suffix(".part.mp4")
        picture = f"testsrc2=size={_SOURCE_SIDE}x{_SOURCE_SIDE}:rate=30,trim=end_frame={_FRAMES}"
        command = [
            ffmpeg_path(settings), "-hide_banner", "-nostdin", "-loglevel", "level+error", "-y",
            "-f", "lavfi", "-i", picture, *_CLIPS[depth], "-preset", "ultrafast", "-g", str(_GOP), str(part),
        ]  # fmt: skip
        run(command, Work("the probe's recording", _CPU_LIMIT_SECONDS), total_frames=_FRAMES, gives_way=False)
        part.replace(path)
    return path


def _cache(settings: MediaSettings, way: Way, row: Encoder) -> Path:
    name = shared.file_name(f"{row.name}-{way.tier.name}-{way.device.name}")
    return shared.folder(settings) / f"{name}.probed"


def _state(settings: MediaSettings, way: Way) -> str:
    """What the answer depends on: ffmpeg, the driver, the kernel, the preset."""
    path = Path(ffmpeg_path(settings))
    found = path.stat()
    parts = [str(path), str(found.st_size), str(found.st_mtime_ns), settings.preset, platform.release(), str(way)]
    driver = Path("/proc/driver/nvidia/version")
    if way.device.kind == "nvenc" and driver.exists():
        parts.append(driver.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def ffmpeg_version(settings: MediaSettings) -> str:
    """As it says of itself; "unknown" where it says nothing. Raises ConfigurationError."""
    try:
        said = subprocess.run(
            [ffmpeg_path(settings), "-version"], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        said = []
    return said[2] if said[:2] == ["ffmpeg", "version"] and len(said) > 2 else "unknown"
