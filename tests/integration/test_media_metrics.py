"""What is counted of real chunks, of the room they are made in, and of the store they go to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from control import telemetry
from control.bus.app import MEDIA, make_app
from control.bus.messages import ChunkJob, ChunkResult
from control.bus.work import Work
from control.errors import AfterliveError, Cancelled, ObjectMissing
from control.settings import Settings, StorageSettings, use
from control.storage import Metered, open_store
from media_worker import metrics
from media_worker.scratch import scratch
from media_worker.tasks import transcode_chunk
from tests.production import Production, media_settings


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A name of the test's own, so that what others counted does not count."""
    monkeypatch.setattr(telemetry, "_node", request.node.name)
    return str(request.node.name)


@pytest.fixture(autouse=True)
def _own_application(settings: Settings) -> None:
    """A task is that of the application in use, and an earlier test may have left one with others of these names."""
    make_app(settings.bus, (MEDIA,)).set_default()


@pytest.fixture
def production(tmp_path: Path, clip: Callable[[str], Path]) -> Production:
    source = clip("mp4")
    made = Production(source, tmp_path, media_settings(tmp_path, source.parent))
    use(Settings(_env_file=None, media=made.settings, storage=StorageSettings(url=f"file:{tmp_path / 'store'}")))
    return made


def transcode(job: ChunkJob) -> ChunkResult:
    result: ChunkResult = transcode_chunk.body(job, Work("chunk", 60))
    return result


def test_a_chunk_is_counted_by_rung_encoder_and_node(production: Production, node: str) -> None:
    result = transcode(production.chunk_job(0))
    assert sample("afterlive_chunks_total", result="done", encoder="libx264", node=node) == 1
    assert sample("afterlive_chunks_running", encoder="libx264", node=node) == 0
    for track, rung in zip(result.tracks, production.plan.rungs, strict=True):
        labels = {"rung": rung.name, "encoder": "libx264", "node": node}
        frames = sample("afterlive_transcoded_frames_total", **labels)
        assert frames == track.frames > 0
        seconds = sample("afterlive_transcoded_seconds_total", **labels)
        assert seconds == pytest.approx(track.frames / float(rung.frame_rate))
        busy = sample("afterlive_transcode_busy_seconds_total", **labels)
        assert busy == result.seconds > 0
        stored = sum(path.stat().st_size for path in (production.made / rung.name).glob("*.m4s"))
        assert sample("afterlive_transcoded_bytes_total", **labels) == stored
        assert sample("afterlive_transcode_fps_sum", **labels) == pytest.approx(frames / busy)
        assert sample("afterlive_transcode_realtime_ratio_sum", **labels) == pytest.approx(seconds / busy)


def test_what_is_found_in_the_store_is_no_work(production: Production, node: str) -> None:
    transcode(production.chunk_job(0))
    rung = production.plan.rungs[0].name
    before = sample("afterlive_transcoded_frames_total", rung=rung, encoder="libx264", node=node)
    transcode(production.chunk_job(0))
    assert sample("afterlive_chunks_total", result="reused", encoder="libx264", node=node) == 1
    assert sample("afterlive_transcoded_frames_total", rung=rung, encoder="libx264", node=node) == before


def test_tries_that_come_to_nothing_are_told_apart(production: Production, node: str) -> None:
    with pytest.raises(AfterliveError):
        transcode(production.chunk_job(0, source=str(production.folder / "gone.mp4")))
    cancelled = Work("chunk", 60)
    cancelled._cancelled.set()
    with pytest.raises(Cancelled):
        transcode_chunk.body(production.chunk_job(0), cancelled)
    for result in ("failed", "cancelled"):
        assert sample("afterlive_chunks_total", result=result, encoder="libx264", node=node) == 1
    assert sample("afterlive_chunks_total", result="done", encoder="libx264", node=node) == 0
    assert sample("afterlive_chunks_running", encoder="libx264", node=node) == 0


def test_work_in_progress_is_measured_when_it_is_asked_for(settings: Settings, node: str) -> None:
    metrics.watch_scratch(settings.media)
    assert sample("afterlive_scratch_used_bytes", node=node) == 0
    with scratch(settings.media) as folder:
        (folder / "encoded").mkdir()
        (folder / "encoded" / "720p.mp4").write_bytes(b"x" * 70_000)
        (folder / "one").write_bytes(b"x" * 5)
        assert sample("afterlive_scratch_used_bytes", node=node) == 70_005
    assert sample("afterlive_scratch_used_bytes", node=node) == 0
    free, size = (sample(f"afterlive_scratch_{what}_bytes", node=node) for what in ("free", "size"))
    assert 0 < free < size


def test_a_scratch_folder_that_is_not_there_yet_has_room(settings: Settings, tmp_path: Path, node: str) -> None:
    metrics.watch_scratch(settings.media.model_copy(update={"scratch": tmp_path / "not" / "yet"}))
    assert sample("afterlive_scratch_used_bytes", node=node) == 0
    assert sample("afterlive_scratch_size_bytes", node=node) > 0


def store_bytes(operation: str) -> float:
    return sample("afterlive_store_bytes_total", operation=operation)


def requests(operation: str, result: str) -> float:
    return sample("afterlive_store_seconds_count", operation=operation, result=result)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_the_stores_traffic_is_counted(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "file":
        store = open_store(StorageSettings(_env_file=None, url=f"file:{tmp_path / 'store'}"))
    else:
        store = request.getfixturevalue("s3_store")
    assert isinstance(store, Metered)
    file = tmp_path / "file"
    file.write_bytes(b"x" * 300_000)
    put, got = store_bytes("put"), store_bytes("get")
    store.put_file("a/file", file)
    store.put_bytes("a/text", b"1234")
    assert store_bytes("put") - put == 300_004
    assert store.get_bytes("a/text") == b"1234"
    with store.open("a/file", 100, 1000) as stream:
        assert stream.read() == b"x" * 1000
    assert store_bytes("get") - got == 1004
    missing = requests("get", "missing")
    with pytest.raises(ObjectMissing):
        store.get_bytes("a/none")
    assert requests("get", "missing") - missing == 1
    assert store_bytes("get") - got == 1004


def test_a_store_that_is_away_is_counted_as_that(tmp_path: Path) -> None:
    store = open_store(StorageSettings(_env_file=None, url=f"file:{tmp_path / 'store'}"))
    (tmp_path / "store").write_text("a file where the folder is to be")
    before = requests("put", "storage-unavailable")
    with pytest.raises(AfterliveError):
        store.put_bytes("a/b", b"1")
    assert requests("put", "storage-unavailable") - before == 1
