"""Media work that fills every core: the same ffmpeg commands, started our way and the plain way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from celery import Celery

from control.bus import names
from control.bus.messages import ChunkJob
from control.bus.publish import Outgoing, publisher_of
from control.bus.work import Work
from control.settings import MediaSettings
from media_worker.command import chunk_command
from media_worker.ffmpeg import ffmpeg_path
from media_worker.probe import probe
from pipelines.plan import make_plan
from tests.benchmarks.bus import plain
from tests.benchmarks.bus.servers import Bus, Servers, kill_tree, tree, until
from tests.benchmarks.sources import make_recording
from tests.platform import Process

# More than can be finished while anything is measured.
_CHUNKS: Final = 200
_SECONDS: Final = 30


@dataclass(frozen=True)
class Media:
    """A chunk of 720p30, to be made again and again."""

    servers: Servers
    settings: MediaSettings
    job: ChunkJob

    @contextmanager
    def ours(self, bus: Bus) -> Iterator[Process]:
        """`afterlive worker media`, at its defaults."""
        jobs = [self.job.model_copy(update={"prefix": f"replays/{number}/"}) for number in range(_CHUNKS)]
        messages = [Outgoing(names.TRANSCODE_CHUNK, {"job": job.model_dump(mode="json")}) for job in jobs]
        problems = [problem for problem in publisher_of(bus.app).publish(messages) if problem]
        if problems:
            raise problems[0]
        worker = bus.worker("media")
        try:
            _await_load(worker)
            yield worker
        finally:
            kill_tree(worker)

    @contextmanager
    def plain(self, url: str, sender: Celery) -> Iterator[Process]:
        """Plain Celery's worker for media, with as many processes."""
        for _ in range(_CHUNKS):
            folder = self.servers.folder("encoded")
            command = chunk_command(ffmpeg_path(self.settings), self.job, f"file:{self.job.source}", folder)
            sender.send_task(plain.transcode.name, [command], queue="media")
        worker = plain.media_worker(self.servers, url)
        try:
            _await_load(worker)
            yield worker
        finally:
            kill_tree(worker)


def make_media(servers: Servers) -> Media:
    """The recording, and the plan's first chunk of it."""
    source = make_recording(servers.recordings / "live.mp4", "1280x720", _SECONDS)
    settings = MediaSettings(_env_file=None, recording_roots=[servers.recordings])
    info = probe(str(source), f"file:{source}", settings, Work("bench", 600)).info
    plan = make_plan(info, settings)
    job = ChunkJob(
        replay_id="bench", part="chunk-00000", source=str(source), prefix="",
        video=info.video.model_copy(update={"keyframes": ()}), chunk=plan.chunks[0], rungs=plan.rungs,
        frame_rate=plan.frame_rate, gop_frames=plan.gop_frames, segment_frames=plan.segment_frames,
        preset=plan.preset, threads=plan.threads,
    )  # fmt: skip
    return Media(servers, settings, job)


def _await_load(worker: Process) -> None:
    """It encodes on every core, and has done so for a second."""
    until(lambda: sum(map(_is_ffmpeg, tree(worker))) >= (os.cpu_count() or 1), "media work has begun", worker)
    time.sleep(1)


def _is_ffmpeg(process: psutil.Process) -> bool:
    try:
        return "ffmpeg" in Path(process.exe()).name
    except psutil.Error:
        return False
