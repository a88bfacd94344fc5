"""Our side: the real command, watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Measured:
    """One run of `afterlive replay`."""

    seconds: float
    """Wall time from the shell's point of view: Python's start-up, probing and publishing included."""
    job_seconds: float
    """From the moment the recording is accepted, which a running worker starts to probe, to the replay published."""
    peak_bytes: int
    """Largest resident memory of our own process; ffmpeg's is its own."""
    summary: dict[str, object]


def replay(source: Path, out: Path, **environment: str) -> Measured:
    """Make the replay of `source`, with more in the `environment`."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("afterlive")), "replay", str(source), "--out", str(out), "--json"]
    # As installed: its bytecode is kept from one run to the next.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=kept | environment
    ) as process:
        watched = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        output, _ = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"afterlive replay ended with {process.returncode}")
    summary = json.loads(output)
    accepted, published = (datetime.fromisoformat(summary["timings"][at]) for at in ("created_at", "completed_at"))
    return Measured(seconds, (published - accepted).total_seconds(), peak, summary)
