"""What the doctor says of GPUs, and of encoders beside the usual one: each is made to encode now, whatever is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from control.checks import Check, fail, info, ok, warn
from control.errors import ConfigurationError
from control.settings import MediaSettings
from media_worker.encoders import breaker
from media_worker.encoders.devices import gpus, unreadable_nodes
from media_worker.encoders.probing import Probed, find_out, possible
from media_worker.encoders.tiers import Way

_USUAL: Final = "libx264"  # has a check of its own
_REMEDY: Final = {
    "nvenc": "install NVIDIA's driver (in a container: its video capability too); 'afterlive gpu-check' says more",
    "vaapi": "install its VAAPI driver (intel-media-va-driver, mesa-va-drivers); 'afterlive gpu-check' says more",
    "cpu": "set AFTERLIVE_MEDIA_FFMPEG to a fuller ffmpeg, or take the encoder out of AFTERLIVE_MEDIA_ENCODERS",
}


def encoder_checks(settings: MediaSettings) -> Iterator[Check]:
    """One an encoder and device; where there is no GPU, one that says so."""
    try:
        devices, ways = gpus(settings), possible(settings)
    except ConfigurationError as error:
        yield fail("encoders", error.detail, f"correct {error.facts['setting']}")
        return
    if unreadable := unreadable_nodes():
        yield warn("GPU", f"{', '.join(unreadable)} may not be used", "add the worker's user to the group render")
    if not devices:
        yield info("GPU", "not here (no device): encoding is done by the CPU")
    found: dict[tuple[str, str], list[tuple[Way, Probed]]] = {}
    for way, row in ways:
        if row.name != _USUAL:
            tried = found.setdefault((row.name, way.device.name), [])
            tried.append((way, find_out(settings, way, row, fresh=True)))
    for (name, _), tried in found.items():
        yield _check(name, tried, settings)
    for device in devices:
        if breaker.is_open(settings, device.name):
            reason = breaker.state(settings, device.name).reason
            yield warn(f"GPU {device.name}", f"left alone after faults: {reason}", "look at the card and its driver")


def _check(name: str, tried: list[tuple[Way, Probed]], settings: MediaSettings) -> Check:
    device = tried[0][0].device
    title = f"encoder {name}" if device.kind == "cpu" else f"encoder {name} on {device.name}"
    works = [(way, probed) for way, probed in tried if probed.usable]
    if not works:
        make = fail if settings.refuse_cpu or device.kind == "cpu" else warn
        then = "chunks for it are refused" if make is fail else "chunks for it are encoded elsewhere, or on a CPU"
        return make(title, f"{tried[0][1].reason}: {then}", _REMEDY[device.kind])
    shown = ", ".join(f"{way.tier.name} (sources of {_bits(probed)} bits)" for way, probed in works)
    label = f"{device.label}: " if device.label else ""
    broken = [f"{way.tier.name}: {probed.reason}" for way, probed in tried if not probed.usable]
    if broken:
        return warn(title, f"{label}{shown}; not {'; '.join(broken)}", _REMEDY[device.kind])
    return ok(title, f"{label}{shown}")


def _bits(probed: Probed) -> str:
    return " and ".join(map(str, probed.bit_depths))
