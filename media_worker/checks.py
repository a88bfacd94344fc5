"""What a media worker needs: ffmpeg, encoders that really encode, decoders, filters, room to work.

A compiled-in encoder is not a working one (a driver may be missing, a device gone), so each is made to encode.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.codec.codec import Codec, UnknownCodecError

from control.bus.messages import Rung
from control.checks import Check, fail, info, ok, warn
from control.errors import ConfigurationError
from control.settings import MediaSettings, Settings
from media_worker.encoders.checks import encoder_checks
from media_worker.encoders.table import ENCODERS, Encoder
from media_worker.ffmpeg import ffmpeg_path
from media_worker.idle_group import own_group

_PROBE_SECONDS: Final = 10
_OLDEST_MAJOR: Final = 5
_NO_FFMPEG: Final = "pip install imageio-ffmpeg, or set AFTERLIVE_MEDIA_FFMPEG to an ffmpeg with libx264"
_OTHER_FFMPEG: Final = "set AFTERLIVE_MEDIA_FFMPEG to a fuller ffmpeg, or unset it to take imageio-ffmpeg's"

# Two GOPs: an encoder that gets the first IDR right may still put the second elsewhere.
_GOP: Final = 30
_FRAMES: Final = 2 * _GOP
# 256 × 256: hardware encoders refuse much smaller pictures.
_RUNG: Final = Rung(
    name="probe",
    width=256,
    height=256,
    frame_rate=Fraction(30),
    video_kbps=300,
    max_kbps=450,
    buffer_kbits=600,
    profile="main",
    timescale=30_000,
)

# What recordings come in → decoders that do, any of them. ffmpeg's own `av1` needs a GPU, so it does not count.
_DECODERS: Final = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1"),
    "MPEG-2": ("mpeg2video",),
    "AAC": ("aac",),
    "Opus": ("opus", "libopus"),
}
_REQUIRED_DECODERS: Final = {"H.264", "AAC"}
_FILTERS: Final = ("zscale", "tonemap")
_AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")


def checks(settings: Settings) -> Iterator[Check]:
    """All of them, each as soon as it is done."""
    try:
        ffmpeg = ffmpeg_path(settings.media)
        version = _ask(ffmpeg, "-version").splitlines()[0]
    except (ConfigurationError, OSError, subprocess.SubprocessError, IndexError) as error:
        yield fail("ffmpeg", " ".join(str(error).split()), _NO_FFMPEG)
    else:
        yield _version(ffmpeg, version)
        yield _video_encoder(ffmpeg, ENCODERS["libx264"], settings.media)
        yield from encoder_checks(settings.media)
        yield _audio_encoder(ffmpeg)
        yield from _decoders(ffmpeg)
        yield _filters(ffmpeg)
    yield _scratch(settings.media)
    yield _lifeline()
    yield _gives_way()


def _version(ffmpeg: str, line: str) -> Check:
    found = re.match(r"ffmpeg version n?(\d+)\.", line)
    shown = f"{' '.join(line.split()[:3])} at {ffmpeg}"
    if found and int(found[1]) < _OLDEST_MAJOR:
        return warn("ffmpeg", f"{shown}; older than {_OLDEST_MAJOR} is not tried", _OTHER_FFMPEG)
    return ok("ffmpeg", shown)


def _video_encoder(ffmpeg: str, encoder: Encoder, settings: MediaSettings) -> Check:
    name = f"encoder {encoder.name}"
    options = encoder.options(_RUNG, _GOP, settings.preset, 1)
    command = ["-f", "lavfi", "-i", f"testsrc2=size=320x320:rate=30,trim=end_frame={_FRAMES}"]
    command += ["-vf", f"scale={_RUNG.width}:{_RUNG.height},format=yuv420p"]
    for option, value in options.items():
        command += [f"-{option}", str(value)]
    try:
        keyframes = _keyframes(_encode(ffmpeg, *command, "-f", "mpegts", "pipe:1"))
    except _NotEncoded as error:
        return fail(name, str(error), _OTHER_FFMPEG)
    if keyframes != ([0, _GOP], _FRAMES):
        return fail(name, f"its keyframes are not where they must be: {keyframes[0]} of {keyframes[1]}", _OTHER_FFMPEG)
    return ok(name, f"made two GOPs of {_RUNG.width}×{_RUNG.height}")


def _audio_encoder(ffmpeg: str) -> Check:
    try:
        made = _encode(
            ffmpeg, "-f", "lavfi", "-i", "sine=duration=1:sample_rate=48000", "-c:a", "aac", "-f", "adts", "-"
        )
    except _NotEncoded as error:
        return fail("encoder aac", str(error), _OTHER_FFMPEG)
    with av.open(io.BytesIO(made), "r", format="aac") as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    # An encoder primes with 1024 or 2048 samples and fills the last frame.
    if not 48_000 <= samples <= 48_000 + 4 * 1024:
        return fail("encoder aac", f"made {samples} samples of 48000", _OTHER_FFMPEG)
    return ok("encoder aac", "made one second")


def _decoders(ffmpeg: str) -> Iterator[Check]:
    known = _names(_ask(ffmpeg, "-decoders"))
    missing = {}
    for codec, names in _DECODERS.items():
        without = [
            where
            for where, there in (
                ("ffmpeg", any(name in known for name in names)),
                ("PyAV", any(_av_decodes(name) for name in names)),
            )
            if not there
        ]
        if without:
            missing[codec] = " and ".join(without)
    if not missing:
        yield ok("decoders", ", ".join(_DECODERS))
    for codec, where in missing.items():
        make = fail if codec in _REQUIRED_DECODERS else warn
        yield make(f"decoder {codec}", f"not in {where}: such recordings are refused", _OTHER_FFMPEG)


def _filters(ffmpeg: str) -> Check:
    known = _names(_ask(ffmpeg, "-filters"))
    missing = [name for name in _FILTERS if name not in known]
    if missing:
        return warn("HDR", f"ffmpeg has no {' and no '.join(missing)}: HDR recordings fail", _OTHER_FFMPEG)
    return ok("HDR", "can be tone-mapped (zscale, tonemap)")


def _scratch(settings: MediaSettings) -> Check:
    folder = settings.scratch or Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1024))
    except OSError as error:
        reason = f"{folder} cannot be written to: {error.strerror}"
        return fail("scratch folder", reason, "set AFTERLIVE_MEDIA_SCRATCH to a folder on a local disk")
    return ok("scratch folder", str(folder))


def _lifeline() -> Check:
    if shutil.which("setpriv"):
        return ok("clean end", "ffmpeg ends with a worker that is killed (setpriv)")
    return info("clean end", "there is no setpriv: of a worker that is killed, ffmpeg ends at its next write")


def _gives_way() -> Check:
    name = "gives way"
    if not hasattr(os, "SCHED_IDLE"):
        return info(name, "this system has no idle priority: latency-bound work belongs on other machines")
    own = own_group()
    if own and own.may_have_others:
        return ok(name, "ffmpeg runs only where nobody else would, in a control group of its own (cpu.idle)")
    if _AUTOGROUP.exists() and _AUTOGROUP.read_text().strip() == "1":
        return info(
            name,
            "ffmpeg runs idle, and this kernel shares by session; where fast workers or the broker are here too, "
            "'sysctl kernel.sched_autogroup_enabled=0' halves how long they wait for it; better still is a worker that "
            "may make a control group: as root, or by systemd's 'Delegate=cpu'",
        )
    return ok(name, "ffmpeg runs only where nobody else would")


class _NotEncoded(Exception):
    """ffmpeg did not make what it was asked for; the message says why."""


def _encode(ffmpeg: str, *arguments: str) -> bytes:
    command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _NotEncoded(f"not done within {_PROBE_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise _NotEncoded(lines[0])
    return done.stdout


def _keyframes(stream: bytes) -> tuple[list[int], int]:
    """Numbers of the keyframes, and how many frames there are."""
    with av.open(io.BytesIO(stream), "r", format="mpegts") as container:
        flags = [frame.key_frame for frame in container.decode(video=0)]
    return [number for number, key in enumerate(flags) if key], len(flags)


def _ask(ffmpeg: str, *arguments: str) -> str:
    command = [ffmpeg, "-hide_banner", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True).stdout


def _names(listing: str) -> set[str]:
    """Names in one of ffmpeg's listings: the second word of each line."""
    return {words[1] for line in listing.splitlines() if len(words := line.split()) > 1}


def _av_decodes(name: str) -> bool:
    try:
        return bool(Codec(name, "r").is_decoder)
    except UnknownCodecError:
        return False
