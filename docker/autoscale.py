"""`python3 docker/autoscale.py SERVICE`: as many media workers as the work that waits needs, on one host with Compose.

    python3 docker/autoscale.py media-cpu --most 6 --file docker/compose.yaml --profile cpu

The same two measures and the same arithmetic as docker/kubernetes/autoscale.yaml, asked of Prometheus every 15 seconds.
It grows at once, and shrinks by one when nothing more was needed for five minutes. Runs until it is stopped; needs the
standard library alone, and the right to use Docker. What it cannot ask, it leaves as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

AGE = "max(afterlive_parts_waiting_seconds)"
BACKLOG = "max(afterlive_backlog_frames)"
# Within a tenth nothing changes, as with Kubernetes' own (--horizontal-pod-autoscaler-tolerance).
_TOLERANCE = 0.1


class NoAnswer(Exception):
    """Prometheus or Docker did not say what was asked."""


@dataclass(frozen=True)
class Limits:
    """What may be, and what is wanted."""

    least: int = 1
    most: int = 4
    age_seconds: float = 60.0
    """How long a part may wait."""
    frames: float = 15_000.0
    """What one worker transcodes in the time a backlog may take."""


def wanted(running: int, age_seconds: float, backlog_frames: float, limits: Limits) -> int:
    """How many workers there should be now.

    As Kubernetes does it (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details):
    the age in proportion to the workers there are, the backlog in proportion to what one of them does; the larger.
    """
    ratio = age_seconds / limits.age_seconds
    by_age = running if abs(ratio - 1) <= _TOLERANCE else math.ceil(max(running, 1) * ratio)
    by_backlog = math.ceil(backlog_frames / limits.frames)
    return max(limits.least, min(limits.most, max(by_age, by_backlog)))


class Slowly:
    """Grows at once; shrinks by one, when nothing more was wanted for so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._needed_at: float | None = None

    def next(self, running: int, number: int, now: float) -> int:
        if number >= running or self._needed_at is None:
            self._needed_at = now
        if number >= running:
            return number
        if now - self._needed_at < self._seconds:
            return running
        self._needed_at = now
        return running - 1


def ask(prometheus: str, query: str) -> float:
    """The value of a query with one result; 0 where it has none. Raises NoAnswer."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (the operator's own address)
            found = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError) as error:
        raise NoAnswer(f"{prometheus}: {error}") from error
    value = float(found[0]["value"][1]) if found else 0.0
    return value if math.isfinite(value) else 0.0


def compose(files: list[str], profiles: list[str], *arguments: str) -> str:
    """What `docker compose` prints. Raises NoAnswer."""
    command = ["docker", "compose", *(f"--file={each}" for each in files), *(f"--profile={each}" for each in profiles)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoAnswer((done.stderr.strip().splitlines() or [f"docker ended with {done.returncode}"])[-1])
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Until it is stopped; with --once, a single look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service")
    parser.add_argument(
        "--file", action="append", required=True, help="a Compose file; several are laid over each other"
    )
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--least", type=int, default=Limits.least)
    parser.add_argument("--most", type=int, default=Limits.most)
    parser.add_argument("--age", type=float, default=Limits.age_seconds, help="seconds a part may wait")
    parser.add_argument("--frames", type=float, default=Limits.frames, help="frames of backlog that are one worker's")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between looks")
    parser.add_argument("--shrink-after", type=float, default=300.0, help="seconds of less need before one goes")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args(arguments)
    limits = Limits(options.least, options.most, options.age, options.frames)
    slowly = Slowly(options.shrink_after)
    while True:
        try:
            running = len(compose(options.file, options.profile, "ps", "--quiet", options.service).split())
            number = wanted(running, ask(options.prometheus, AGE), ask(options.prometheus, BACKLOG), limits)
            number = slowly.next(running, number, time.monotonic())
            if number != running:
                print(f"{options.service}: {running} → {number}", flush=True)
                scale = f"--scale={options.service}={number}"
                up = ("up", "--detach", "--no-recreate", "--no-deps", scale, options.service)
                compose(options.file, options.profile, *up)
        except NoAnswer as error:
            print(f"{options.service} stays as it is: {error}", file=sys.stderr, flush=True)
        if options.once:
            return 0
        time.sleep(options.every)


if __name__ == "__main__":
    sys.exit(main())
