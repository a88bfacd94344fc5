"""The media tier's tasks. Each: load, do one thing, store; what surrounds it is the base task's."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery.apps.worker import Worker

from control.bus import names
from control.bus.messages import (
    AudioJob,
    AudioResult,
    ChunkJob,
    ChunkResult,
    MediaInfo,
    RecordingJob,
    ThumbnailJob,
    ThumbnailResult,
)
from control.bus.task import task
from control.bus.work import Work
from control.settings import current
from control.storage import open_store
from media_worker import metrics
from media_worker.audio import make_audio
from media_worker.audio_segments import split_audio
from media_worker.chunk import make_chunk
from media_worker.encoders.devices import gpus
from media_worker.encoders.report import report
from media_worker.ffmpeg import ffmpeg_path
from media_worker.giving_way import give_way
from media_worker.idle_group import IDLE_GROUP, own_group
from media_worker.pacer import PACER
from media_worker.parts import find_part, store_part
from media_worker.pictures import make_pictures
from media_worker.recording import examine
from media_worker.scratch import clean_scratch, scratch
from media_worker.source import locate

log = logging.getLogger("afterlive.media")


@signals.worker_init.connect(weak=False)
def _prepare(sender: object, **_: Any) -> None:
    settings = current()
    # A worker that was killed cannot remove what it was working on; the next one does.
    if removed := clean_scratch(settings.media):
        log.info("removed %d folders that workers left behind", removed)
    metrics.watch(settings.media)
    IDLE_GROUP.open(own_group())
    PACER.start(settings.media.pace_ms / 1000)
    if gpus(settings.media):
        # Before the first chunk, so that none is lost to a card that does not work.
        report(settings)
    elif isinstance(sender, Worker):
        # A process of media's own. Where all is embedded, others would wait for what its threads hold.
        signals.task_prerun.connect(_give_way, weak=False)


def _give_way(**_: Any) -> None:
    """What is done beside encoding (looking, checking, uploading) takes a core for milliseconds, too. Not beside a
    card: what feeds it is started by the same thread, and would look like a card that hangs."""
    give_way()


@task(names.PROCESS_STREAM_RECORDING)
def process_stream_recording(job: RecordingJob, work: Work) -> MediaInfo:
    """Probe the recording of a stream that ended; what follows is planned from the answer."""
    settings = current()
    return examine(job, open_store(settings.storage), settings.media, work)


@task(names.TRANSCODE_CHUNK)
def transcode_chunk(job: ChunkJob, work: Work) -> ChunkResult:
    """Every rung of one chunk."""
    settings = current()
    with metrics.counted(job):
        result = make_chunk(job, open_store(settings.storage), settings.media, work)
    metrics.measure(job, result)
    return result


@task(names.ENCODE_AUDIO)
def encode_audio(job: AudioJob, work: Work) -> AudioResult:
    """One audio rendition of the whole programme."""
    settings = current()
    store = open_store(settings.storage)
    if found := find_part(store, job.prefix, job.part, AudioResult):
        return found
    with scratch(settings.media) as folder:
        whole = folder / "audio.mp4"
        sound = make_audio(ffmpeg_path(settings.media), job, locate(job.source, store), whole, work)
        name = job.rendition.name
        finished = folder / "finished"
        track = split_audio(whole, name, job.duration_seconds, job.segment_seconds, finished / name)
        result = AudioResult(
            track=track, mode=sound.mode, seconds=round(sound.seconds, 3), loudness_lufs=sound.loudness_lufs
        )
        store_part(store, job.prefix, job.part, finished, result, work)
    return result


@task(names.GENERATE_STREAM_THUMBNAIL)
def generate_stream_thumbnail(job: ThumbnailJob, work: Work) -> ThumbnailResult:
    """Poster, candidates and storyboard, from one pass over the keyframes."""
    settings = current()
    store = open_store(settings.storage)
    if found := find_part(store, job.prefix, job.part, ThumbnailResult):
        return found
    with scratch(settings.media) as folder:
        result = make_pictures(locate(job.source, store), job, folder, work)
        store_part(store, job.prefix, job.part, folder, result, work)
    return result
