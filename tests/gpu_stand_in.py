"""An ffmpeg for machines without a GPU: what is asked of NVENC or VAAPI it lets the real ffmpeg make on the CPU, or it
fails as they do. What it makes is real (frames, times, keyframes, boxes); whose it is, is not.

Started as a program it does so by the rules in the file beside it; imported it writes that file.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# What the drivers say, as ffmpeg's log of level `error` shows it.
SAYS: Final = {
    "no session": (
        "[h264_nvenc] [error] OpenEncodeSessionEx failed: incompatible client key (21): (no details)\n"
        "[h264_nvenc] [error] No capable devices found"
    ),
    "no memory": (
        "[h264_nvenc] [error] OpenEncodeSessionEx failed: out of memory (10): (no details)\n"
        "[h264_nvenc] [error] No capable devices found"
    ),
    "va busy": "[h264_vaapi] [error] Failed to begin picture encode issue: 35 (hw busy now).",
    "no driver": (
        "[CUDA] [error] Cannot load libcuda.so.1\n[CUDA] [error] Could not dynamically load CUDA\n"
        "[error] Device creation failed: -1."
    ),
    "no display": (
        "[VAAPI] [error] No VA display found for device /dev/dri/renderD128.\n[error] Device creation failed: -22."
    ),
    "no decoder": (
        "[h264] [error] Failed setup for format cuda: hwaccel initialisation returned error.\n"
        "[error] Impossible to convert between the formats supported by the filter 'trim' and the filter 'auto_scale_0'"
    ),
    "no entrypoint": "[h264_vaapi] [error] No usable encoding entrypoint found for profile VAProfileH264High (7).",
    "too small": (
        "[h264_nvenc] [error] InitializeEncoder failed: invalid param (8): "
        "Frame Dimension less than the minimum supported value."
    ),
    "damaged": (
        "[h264] [error] error while decoding MB 10 10, bytestream -5\n"
        "[in#0] [error] Error during demuxing: Invalid data found when processing input"
    ),
    "illegal address": (
        "[h264_nvenc] [error] EncodePicture failed!: generic error (20): (no details)\n"
        "[CUDA] [error] cu->cuMemcpy2D(&cpy) failed -> CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"
    ),
}


@dataclass
class Call:
    """One start of it."""

    device: str
    tier: str
    outcome: str
    probe: bool = False
    """Whether it was to find out what the device can."""


class StandIn:
    """The program in `folder`, running `real` for what it does not fail."""

    def __init__(self, folder: Path, real: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "ffmpeg"
        self._rules = folder / "rules.json"
        self._log = folder / "calls.jsonl"
        # -S and -E: it starts in a fraction of the time, and needs nothing but the standard library.
        self.path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{Path(__file__)}" "{folder}" "{real}" "$@"\n')
        self.path.chmod(0o755)
        self._write([])

    def fail(
        self, how: str, *, device: str = "", tier: str = "", naming: str = "", after: int = 0, times: int = 1_000_000
    ) -> None:
        """The next `times` commands for `device` and `tier` (empty: any of a GPU) that name `naming` end so; the first
        `after` of them do not."""
        rules = json.loads(self._rules.read_text())
        rule = {"how": how, "device": device, "tier": tier, "naming": naming, "after": after, "left": times}
        self._write([*rules, rule])

    def work(self) -> None:
        """From now on nothing fails."""
        self._write([])

    def calls(self) -> list[Call]:
        if not self._log.exists():
            return []
        return [Call(**json.loads(line)) for line in self._log.read_text().splitlines()]

    def ways(self) -> list[tuple[str, str, str]]:
        """Device, tier and outcome of each start that was for a GPU."""
        return [(call.device, call.tier, call.outcome) for call in self.calls() if call.device != "cpu"]

    def _write(self, rules: list[dict[str, Any]]) -> None:
        self._rules.write_text(json.dumps(rules))


def way_of(arguments: list[str]) -> tuple[str, str]:
    """The device and the tier a command is for."""
    if "-init_hw_device" not in arguments:
        return "cpu", "cpu"
    kind, _, address = arguments[arguments.index("-init_hw_device") + 1].partition("=gpu:")
    decodes = "-hwaccel" in arguments
    device = f"{'nvenc' if kind == 'cuda' else 'vaapi'}:{address}"
    return device, kind if decodes else f"{kind}-upload"


def rule_for(folder: Path, device: str, tier: str, arguments: list[str]) -> str:
    """How this start ends; "made" where no rule says."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rules = json.loads((folder / "rules.json").read_text())
        how = "made"
        for rule in rules:
            named = any(rule["naming"] in each for each in arguments)
            if device == "cpu" or rule["device"] not in ("", device) or rule["tier"] not in ("", tier) or not named:
                continue
            if rule["after"]:
                rule["after"] -= 1
            elif rule["left"]:
                rule["left"] -= 1
                how = rule["how"]
                break
        (folder / "rules.json").write_text(json.dumps(rules))
        with (folder / "calls.jsonl").open("a") as log:
            probe = any("/probe-" in each for each in arguments)
            log.write(json.dumps({"device": device, "tier": tier, "outcome": how, "probe": probe}) + "\n")
    return how


_GONE: Final = {
    "-init_hw_device", "-filter_hw_device", "-hwaccel", "-hwaccel_device", "-hwaccel_output_format", "-extra_hw_frames",
    "-rc", "-tune", "-forced-idr", "-no-scenecut", "-b_ref_mode", "-rc_mode", "-idr_interval",
}  # fmt: skip


def on_the_cpu(arguments: list[str], gop: int | None = None) -> list[str]:
    """The same command for libx264 and the CPU's filters; with `gop`, an encoder that puts its keyframes there."""
    made: list[str] = []
    names = iter(arguments)
    for name in names:
        if name in _GONE:
            next(names)
        elif name == "-filter_complex":
            made += [name, _filters(next(names))]
        elif name == "-c:v" and (encoder := next(names)).startswith("h264_"):
            made += [name, "libx264", "-sc_threshold", "0", "-threads", "1"]
        elif name == "-c:v":
            made += [name, encoder]
        elif name == "-preset":
            preset = next(names)
            made += [name, "ultrafast" if re.fullmatch(r"p\d", preset) else preset]
        elif name == "-g":
            asked = next(names)
            wanted = asked if gop is None else str(gop)
            made += [name, wanted, "-keyint_min", wanted]
        elif name == "-profile:v":
            made += [name, next(names).replace("constrained_", "")]
        else:
            made.append(name)
    if "-preset" not in made:
        made[made.index("-c:v") : made.index("-c:v")] = ["-preset", "ultrafast"]
    return made


def _filters(graph: str) -> str:
    graph = re.sub(
        r"scale_(?:cuda|vaapi)=[^\[]*?h=(\d+)[^\[]*?w=(\d+)", r"scale=\2:\1:flags=bicubic,format=yuv420p", graph
    )
    return re.sub(r"hwupload_cuda|hwupload=extra_hw_frames=\d+|hwdownload", "null", graph)


def main(folder: Path, real: str, arguments: list[str]) -> int:
    device, tier = way_of(arguments)
    how = rule_for(folder, device, tier, arguments)
    if how in SAYS:
        print(SAYS[how], file=sys.stderr)
        print("[fatal] Error opening output files: Operation not permitted", file=sys.stderr)
        return 255
    command = [real, *(arguments if device == "cpu" else on_the_cpu(arguments, 17 if how == "wrong grid" else None))]
    if how in ("made", "wrong grid"):
        os.execv(real, command)  # noqa: S606  (what it is there for)
    # Half way through: some of the output is there.
    outputs = [Path(each) for each in arguments if each.endswith(".mp4") and not each.startswith("file:")]
    # Slowly, as the encoder is to be met at work.
    slow = command.index("-i")
    child = subprocess.Popen([*command[:slow], "-readrate", "2", *command[slow:]], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(path.exists() and path.stat().st_size for path in outputs) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while how == "hang":
        print("frame=1\nprogress=continue", flush=True)
        time.sleep(0.2)
    raise ValueError(how)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
