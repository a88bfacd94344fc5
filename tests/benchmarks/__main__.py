"""`make bench`: our whole job beside one plain ffmpeg command, on the same source and encoder settings; and our bus
beside plain Celery, Dramatiq and Taskiq on the same servers. Each in one run.

Prints ratios; seconds depend on the machine. `BENCH_ARGS=--quick` leaves the long runs out; `--media` and `--bus`
choose one of the two, and `--seconds` how long each measurement of the bus takes. `--quality` alone scores the
content-aware ladder against Apple's fixed one, on recordings of your own too (`--clips FOLDER`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from control.bus.messages import Plan
from control.bus.work import Work
from control.settings import current
from media_worker.complexity import measure_complexity
from media_worker.probe import probe
from pipelines.plan import make_plan
from tests.benchmarks import ours, peer, pictures, quality
from tests.benchmarks.bus import run as bus
from tests.benchmarks.sources import make_recording

_QUICK_SECONDS: Final = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="media: only one minute; bus: 5 s a measurement")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--bus", nargs="?", const=bus.ALL, choices=bus.PARTS, help="the bus alone, or one part of it")
    part.add_argument("--media", action="store_true", help="media alone")
    parser.add_argument(
        "--seconds", type=float, help=f"about how long each measurement of the bus takes ({bus.SECONDS})"
    )
    part.add_argument("--quality", action="store_true", help="the content-aware ladder against the fixed one")
    parser.add_argument("--clips", type=Path, help="a folder of recordings to score, besides those that are made")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    if options.quality:
        quality.main(options.clips)
        return
    if not options.bus:
        media(quick=options.quick)
    if not options.media:
        seconds = options.seconds or (_QUICK_SECONDS if options.quick else bus.SECONDS)
        bus.main(seconds, options.bus or bus.ALL)


def media(*, quick: bool) -> None:
    """Replays, their cost over length, planning and pictures."""
    with tempfile.TemporaryDirectory(prefix="afterlive-bench-") as folder:
        work = Path(folder)
        compare(work, seconds=60, rounds=3)
        if quick:
            return
        compare(work, seconds=60, rounds=2, size="1920x1080", kbps=8000)
        compare(work, seconds=300, rounds=2)
        compare(work, seconds=600, rounds=1)
        grow(work)
        planning(work)
    pictures.main()


def compare(work: Path, seconds: int, rounds: int, *, size: str = "1280x720", kbps: int = 4000) -> None:
    """The whole job (probe to published, sound, thumbnails, storyboard, checks) against the peer's ladder alone.

    A worker is there already when a stream ends; what the command's own start adds is told besides. Each in
    turn, `rounds` times; the fastest of each counts: a machine that others share is never faster than it is.
    """
    source = make_recording(work / f"compare-{size}-{seconds}.mp4", size, seconds, kbps=kbps)
    plan = planned(source)
    rungs = ", ".join(rung.name for rung in plan.rungs)
    print(f"{seconds} s of {size} at 30 fps → {rungs}, {plan.preset}; {rounds} rounds, seconds", flush=True)
    theirs: dict[str, list[float]] = {way: [] for way in peer.WAYS}
    mine: list[ours.Measured] = []
    for _ in range(rounds):
        for way in peer.WAYS:
            theirs[way].append(peer.single_command(source, plan, work / "peer", way))
        mine.append(ours.replay(source, work / "ours"))
    for way, runs in theirs.items():
        print(f"  one ffmpeg command, {way:8} {_listed(runs)}")
    print(f"  our job, probe to published  {_listed([run.job_seconds for run in mine])}")
    print(f"  afterlive replay, all of it  {_listed([run.seconds for run in mine])}")
    fastest = min(min(runs) for runs in theirs.values())
    ratio = min(run.job_seconds for run in mine) / fastest
    print(f"  ratio of the fastest         {ratio:7.3f}   (bar: 1.00)")
    print(f"  with our command's start-up  {min(run.seconds for run in mine) / fastest:7.3f}")
    print(
        f"  peak memory of our process   {max(run.peak_bytes for run in mine) / 2**20:7.0f}   MiB (bar: 300)",
        flush=True,
    )


def planned(source: Path) -> Plan:
    """The plan our own job has: content is looked at too."""
    settings, work, address = current().media, Work("bench", 600), f"file:{source}"
    info = probe(str(source), address, settings, work).info
    if settings.content_aware and not settings.ladder:
        info = info.model_copy(update={"complexity": measure_complexity(address, info.video, settings, work)})
    return make_plan(info, settings)


def _listed(seconds: list[float]) -> str:
    return " ".join(f"{value:7.1f}" for value in seconds)


def grow(work: Path) -> None:
    """Cost and memory over length: 1, 5 and 20 minutes of a small picture."""
    print("cost over length, 640×360")
    for minutes in (1, 5, 20):
        source = make_recording(work / f"grow-{minutes}.mp4", "640x360", minutes * 60, kbps=1200)
        mine = ours.replay(source, work / "grown")
        share = mine.seconds / minutes
        print(f"  {minutes:3} min {mine.seconds:7.1f} s   {share:5.1f} s a minute   {mine.peak_bytes / 2**20:4.0f} MiB")


def planning(work: Path) -> None:
    """From a two-hour recording to its plan."""
    source = make_recording(work / "two-hours.mp4", "1280x720", 7200)
    for name in ("first", "again, from the page cache"):
        started = time.perf_counter()
        plan = planned(source)
        seconds = time.perf_counter() - started
        size = source.stat().st_size / 1e9
        print(f"planning 2 h ({size:.1f} GB, {name}): {seconds:.2f} s, {len(plan.chunks)} chunks  (bar: 5)")
    source.unlink()


if __name__ == "__main__":
    main()
