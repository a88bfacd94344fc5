"""A chunk: made once, checked, whole in the store or not at all."""

from __future__ import annotations

import hashlib
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from control.bus.messages import ChunkResult, Progress
from control.bus.work import Work
from control.errors import Cancelled, DeadlineExceeded, EncoderFailed, ObjectMissing, OutputRejected, RecordingMissing
from control.storage import LocalStore
from media_worker.chunk import make_chunk
from media_worker.command import chunk_command
from media_worker.ffmpeg import ffmpeg_path
from media_worker.parts import find_part, manifest_key
from media_worker.runner import run
from tests.frame_numbers import read_frame_number
from tests.production import PREFIX, Production, decode_video, media_settings
from tests.services import children


@pytest.fixture
def made(clip: Callable[[str], Path], tmp_path: Path) -> Production:
    """A recording of 8 s, two chunks of a segment each (keyframes every 2 s)."""
    source = clip("eight-seconds")
    production = Production(source, tmp_path, media_settings(tmp_path, source.parent))
    assert [(chunk.first_frame, chunk.frames) for chunk in production.plan.chunks] == [(0, 180), (180, 60)]
    assert production.plan.chunks[1].entry_pts is not None
    return production


class Starts:
    """How often ffmpeg was started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []

        def counted(command: list[str], work: Work, *, total_frames: int, hang_seconds: float | None) -> float:
            self.commands.append(command)
            return run(command, work, total_frames=total_frames, hang_seconds=hang_seconds)

        monkeypatch.setattr("media_worker.chunk.run", counted)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(monkeypatch)


def scratch_of(production: Production) -> list[Path]:
    folder = production.settings.scratch
    assert folder is not None
    return list(folder.iterdir()) if folder.exists() else []


def test_the_result_says_what_is_in_the_store(made: Production) -> None:
    result = made.make_chunk(1)
    assert (result.index, result.encoder, result.reused) == (1, "libx264", False)
    assert result.seconds > 0
    assert [track.name for track in result.tracks] == ["180p", "90p"]
    names = set()
    for track in result.tracks:
        assert track.frames == 60
        init = (made.made / track.name / "init.mp4").read_bytes()
        assert hashlib.sha256(init).hexdigest() == track.init_sha256
        names.add(f"{track.name}/init.mp4")
        for segment in track.segments:
            assert (made.made / track.name / segment.name).stat().st_size == segment.size_bytes
            names.add(f"{track.name}/{segment.name}")
            assert sum(iframe.ticks for iframe in segment.iframes) == segment.ticks
    assert {key.removeprefix(PREFIX) for key in made.store.list(PREFIX)} == names | {".work/chunk-00001.json"}
    assert scratch_of(made) == []
    manifest = made.store.get_bytes(manifest_key(PREFIX, "chunk-00001"))
    assert ChunkResult.model_validate_json(manifest) == result


def test_what_is_made_is_not_made_again(made: Production, starts: Starts) -> None:
    first = made.make_chunk(0)
    assert len(starts.commands) == 1
    again = made.make_chunk(0)
    assert len(starts.commands) == 1
    assert again == first.model_copy(update={"reused": True})


@pytest.mark.parametrize("name", ["180p/init.mp4", "180p/seg-00000.m4s", "90p/init.mp4", ".work/chunk-00000.json"])
@pytest.mark.parametrize("harm", ["missing", "short", "other"])
def test_what_is_not_whole_is_made_again(name: str, harm: str, made: Production, starts: Starts) -> None:
    first = made.make_chunk(0)
    files = made.files()
    path = made.made / name
    whole = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "short":
        path.write_bytes(whole[:-1])
    elif name.endswith(".m4s"):
        return  # of segments, the size alone is looked at
    else:
        path.write_bytes(bytes(len(whole)))
    again = made.make_chunk(0)
    assert len(starts.commands) == 2
    assert not again.reused
    assert again.tracks == first.tracks
    assert made.files() == files


def test_what_an_earlier_plan_made_does_not_count(made: Production, starts: Starts) -> None:
    made.make_chunk(0)
    job = made.chunk_job(0)
    fewer = job.model_copy(update={"rungs": job.rungs[:1]})
    result = make_chunk(fewer, made.store, made.settings, Work("x", 60))
    assert [track.name for track in result.tracks] == ["180p"]
    assert len(starts.commands) == 2


@pytest.mark.parametrize(("first_frame", "entry_seconds"), [(120, 6), (120, 600)])
def test_an_index_that_lies_costs_time_but_no_frame(
    first_frame: int, entry_seconds: int, made: Production, starts: Starts
) -> None:
    """Entered too late, or behind the end, it is read from the start instead."""
    entry = round(entry_seconds / made.info.video.time_base)
    late = made.plan.chunks[1].model_copy(
        update={"first_frame": first_frame, "frames": 240 - first_frame, "entry_pts": entry}
    )
    make_chunk(made.chunk_job(1, chunk=late), made.store, made.settings, Work("x", 60))
    assert ["-ss" in command for command in starts.commands] == [True, False]
    numbers = [read_frame_number(picture) for picture in decode_video(made.whole("180p"))[0]]
    assert numbers == list(range(first_frame, 240))


def test_entering_and_reading_from_the_start_give_the_same_bytes(made: Production) -> None:
    made.make_chunk(1)
    entered = made.files()
    made.store.delete_prefix(PREFIX)
    start = made.plan.chunks[1].model_copy(update={"entry_pts": None})
    make_chunk(made.chunk_job(1, chunk=start), made.store, made.settings, Work("x", 60))
    assert made.files() == entered


def test_a_source_that_ends_early_is_filled_with_its_last_picture(made: Production) -> None:
    job = made.chunk_job(1)
    longer = job.chunk.model_copy(update={"frames": 90})
    make_chunk(job.model_copy(update={"chunk": longer}), made.store, made.settings, Work("x", 60))
    numbers = [read_frame_number(picture) for picture in decode_video(made.whole("180p"))[0]]
    assert numbers == [*range(180, 240), *[239] * 30]


def test_what_fails_its_check_leaves_nothing(made: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder puts keyframes where it should not."""

    def wrong(*arguments: object) -> list[str]:
        command = chunk_command(*arguments)  # type: ignore[arg-type]
        places = [number + 1 for number, argument in enumerate(command) if argument in ("-g", "-keyint_min")]
        for place in places:
            command[place] = "45"
        return command

    monkeypatch.setattr("media_worker.chunk.chunk_command", wrong)
    with pytest.raises(OutputRejected, match="chunk-00000 180p"):
        made.make_chunk(0)
    assert list(made.store.list(PREFIX)) == []
    assert scratch_of(made) == []
    assert find_part(made.store, PREFIX, "chunk-00000", ChunkResult) is None


def test_a_recording_that_went_away_fails_and_leaves_nothing(made: Production) -> None:
    job = made.chunk_job(0, source=str(made.folder / "gone.mp4"))
    with pytest.raises(EncoderFailed, match="No such file"):
        make_chunk(job, made.store, made.settings, Work("x", 60))
    gone = made.chunk_job(0, source="store:replays/r/.work/source.mkv")
    with pytest.raises(RecordingMissing):
        make_chunk(gone, made.store, made.settings, Work("x", 60))
    assert list(made.store.list(PREFIX)) == []
    assert scratch_of(made) == []


def test_cancel_in_the_middle_leaves_nothing(made: Production, tmp_path: Path) -> None:
    """ffmpeg is slowed down, so that there is a middle."""
    slow = tmp_path / "slow-ffmpeg"
    slow.write_text(f'#!/bin/sh\nexec "{ffmpeg_path(made.settings)}" -readrate 0.5 "$@"\n')
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    settings = made.settings.model_copy(update={"ffmpeg": str(slow)})
    cancelled = threading.Event()
    at = [0.0]

    def stop(progress: Progress) -> None:
        if progress.done_frames > 0 and not cancelled.is_set():
            at[0] = time.monotonic()
            cancelled.set()

    work = Work("x", 60, cancelled=cancelled, reporter=stop, report_every_seconds=0)
    with pytest.raises(Cancelled):
        make_chunk(made.chunk_job(0), made.store, settings, work)
    assert time.monotonic() - at[0] < 5
    assert children() == []
    assert list(made.store.list("")) == []
    assert list((made.folder / "store").rglob("*.m4s")) == []
    assert scratch_of(made) == []
    assert made.make_chunk(0).reused is False


def test_a_deadline_that_is_over_leaves_nothing(made: Production) -> None:
    with pytest.raises(DeadlineExceeded):
        made.make_chunk(0, Work("x", 0))
    assert list(made.store.list(PREFIX)) == []
    assert scratch_of(made) == []


def test_cancel_while_it_is_stored_leaves_no_manifest(made: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()
    put = LocalStore.put_file

    def put_and_cancel(self: LocalStore, key: str, path: Path) -> None:
        put(self, key, path)
        cancelled.set()

    monkeypatch.setattr(LocalStore, "put_file", put_and_cancel)
    with pytest.raises(Cancelled):
        made.make_chunk(0, Work("x", 60, cancelled=cancelled))
    with pytest.raises(ObjectMissing):
        made.store.get_bytes(manifest_key(PREFIX, "chunk-00000"))
    assert find_part(made.store, PREFIX, "chunk-00000", ChunkResult) is None


def test_progress_of_a_chunk_is_its_frames(made: Production) -> None:
    reports: list[Progress] = []
    made.make_chunk(0, Work("x", 60, reporter=reports.append, report_every_seconds=0))
    assert (reports[-1].done_frames, reports[-1].total_frames) == (180, 180)
    assert [each.done_frames for each in reports] == sorted(each.done_frames for each in reports)
