"""The first part of a replay: look at the recording, and put it into a form that chunks can be cut from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from control.bus.messages import MediaInfo, Note, RecordingJob
from control.bus.names import PROBED
from control.bus.work import Work
from control.errors import RecordingMissing
from control.recordings import check_recording_file
from control.settings import MediaSettings
from control.storage import ObjectStore
from control.storage.sources import STORE_SCHEME, accept_source, check_stored
from media_worker.complexity import measure_complexity
from media_worker.probe import probe
from media_worker.rewrite import rewrite
from media_worker.scratch import scratch
from media_worker.source import locate

# Without an index, entering at a time reads all before it; that adds up where there are many chunks.
_UNINDEXED_SECONDS: Final = 300.0
# A hook may be sent before the media server has closed the file.
_SETTLE_SECONDS: Final = 0.5
_YOUNG_SECONDS: Final = 5.0


def examine(job: RecordingJob, store: ObjectStore, settings: MediaSettings, work: Work) -> MediaInfo:
    """The recording's facts, its `source` being what the other parts are to read.

    Where its clock jumps, or a long one has no index, that is a rewritten copy in the store. Raises the children of
    InputError.
    """
    source = accept_source(job.source, settings)
    if source.startswith(STORE_SCHEME):
        check_stored(source, store, settings)
    else:
        path = Path(source)
        check_recording_file(path, settings)
        _wait_until_stable(path, work)
    found = probe(source, locate(source, store), settings, work)
    too_long_to_scan = not found.seekable and found.info.duration_seconds > _UNINDEXED_SECONDS
    if not found.jumps and not too_long_to_scan:
        return _with_complexity(found.info, locate(source, store), settings, work)
    with scratch(settings) as folder:
        copy = folder / "source.mkv"
        rewrite(source, locate(source, store), copy, work)
        key = f"{job.prefix}.work/source.mkv"
        store.put_file(key, copy)
    copied = locate(STORE_SCHEME + key, store)
    again = probe(STORE_SCHEME + key, copied, settings, work)
    info = again.info.model_copy(update={"notes": _merge(found.info.notes, again.info.notes)})
    return _with_complexity(info, copied, settings, work)


def _with_complexity(info: MediaInfo, address: str, settings: MediaSettings, work: Work) -> MediaInfo:
    """What rates are chosen by; a ladder of one's own is taken as it is, and needs none."""
    if settings.ladder or not settings.content_aware:
        return info
    # Sound and pictures can be made meanwhile.
    work.tell(PROBED, info)
    return info.model_copy(update={"complexity": measure_complexity(address, info.video, settings, work)})


def _merge(first: tuple[Note, ...], second: tuple[Note, ...]) -> tuple[Note, ...]:
    codes = {note.code for note in first}
    return (*first, *(note for note in second if note.code not in codes))


def _wait_until_stable(path: Path, work: Work) -> None:
    """Return once the file has stopped growing. One that nobody wrote to lately is not waited for."""
    try:
        found = path.stat()
        while time.time() - found.st_mtime < _YOUNG_SECONDS:
            time.sleep(_SETTLE_SECONDS)
            work.check()
            before, found = found, path.stat()
            if (before.st_size, before.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
                return
    except OSError as error:
        raise RecordingMissing(source=str(path)) from error
