"""Which GPUs there are. Whether one works, only encoding on it tells: see `media_worker.encoders.probing`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from control.errors import ConfigurationError
from control.settings import MediaSettings
from media_worker.encoders.tiers import Device

DEV: Final = Path("/dev")
_ASK_SECONDS: Final = 10
_FORGET_SECONDS: Final = 60
_VENDORS: Final = {"0x8086": "Intel", "0x1002": "AMD", "0x10de": "NVIDIA"}  # PCI's numbers


def gpus(settings: MediaSettings) -> list[Device]:
    """Those the settings name, else all that are found: NVENC's before VAAPI's. Raises ConfigurationError."""
    if settings.devices:
        return [_named(name) for name in settings.devices]
    return list(_found(DEV, int(time.monotonic() // _FORGET_SECONDS)))


@lru_cache(maxsize=1)
def _found(_dev: Path, _minute: int) -> tuple[Device, ...]:
    """Asked for by each chunk, and nvidia-smi takes its time."""
    return (*_nvidia(), *_render_nodes())


def _named(name: str) -> Device:
    kind, _, address = name.partition(":")
    if kind == "nvenc" and address.isdigit():
        return Device("nvenc", address)
    if kind == "vaapi" and address.startswith("/"):
        return Device("vaapi", address)
    reason = f"{name!r} is neither nvenc:NUMBER nor vaapi:/dev/dri/renderDNUMBER"
    raise ConfigurationError(setting="AFTERLIVE_MEDIA_DEVICES", reason=reason)


def _nvidia() -> list[Device]:
    """As nvidia-smi numbers them; without it, as many as there are device files (a container sees its own alone, and
    CUDA counts from 0 in it)."""
    nodes = sorted(DEV.glob("nvidia[0-9]*"))
    if not nodes:
        return []
    if (smi := shutil.which("nvidia-smi")) is not None:
        # A driver that is out of step answers nothing; the probe will say what it says to ffmpeg.
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(
                [smi, "--query-gpu=index,name", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=_ASK_SECONDS, check=True,
            )  # fmt: skip
            rows = [row.partition(",") for row in asked.stdout.splitlines() if row.strip()]
            return [Device("nvenc", index.strip(), name.strip()) for index, _, name in rows]
    return [Device("nvenc", str(number)) for number in range(len(nodes))]


def _render_nodes() -> list[Device]:
    """Of Intel and AMD: NVIDIA's render nodes speak no VAAPI that encodes."""
    nodes = sorted(DEV.glob("dri/renderD*"))
    found = [(str(node), _vendor(node)) for node in nodes if os.access(node, os.R_OK | os.W_OK)]
    return [Device("vaapi", path, vendor) for path, vendor in found if vendor != "NVIDIA"]


def _vendor(node: Path) -> str:
    try:
        number = Path(f"/sys/class/drm/{node.name}/device/vendor").read_text().strip()
    except OSError:
        return ""
    return _VENDORS.get(number, number)


def unreadable_nodes() -> list[str]:
    """Render nodes that are here and that this user may not use."""
    return [str(node) for node in sorted(DEV.glob("dri/renderD*")) if not os.access(node, os.R_OK | os.W_OK)]
