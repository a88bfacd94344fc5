"""What a replay promises whoever watches it being made, whatever happens to messages, workers and the process."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from sqlalchemy import delete, update

from control.bus import names
from control.bus.messages import ChunkJob, ChunkResult, Plan
from control.bus.publish import send
from control.bus.work import Work
from control.errors import InputError
from control.ledger import outbox, parts, replays, streams, views
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow, Part, Replay
from control.ledger.views import ReplayView, StreamView
from control.settings import Settings
from control.storage import LocalStore, open_store
from pipelines import workflows
from pipelines.reconcile import reconcile
from tests.backend import Made, backend, with_media
from tests.bus import bus, until
from tests.fake_media import Studio


@pytest.fixture
def studio() -> Studio:
    return Studio()


def unusable(reason: str) -> InputError:
    return InputError(source="60s.mp4", reason=reason)


def all_but_one(view: ReplayView) -> bool:
    return view.chunks_total > 1 and view.chunks_done == view.chunks_total - 1


def forget_messages(ledger: Ledger) -> None:
    """As if they had been sent, and the bus had lost them."""
    with ledger.write() as session:
        session.execute(delete(OutboxRow))


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_never_goes_back_and_every_change_has_a_version(settings: Settings, studio: Studio) -> None:
    """Reports are on their way among four threads and overtake one another; nobody sees that."""

    def chunk(job: ChunkJob, work: Work) -> ChunkResult:
        address = {"replay_id": job.replay_id, "run": job.run, "part": job.part}
        for done in range(20, job.chunk.frames, 20):
            progress = {"done_frames": done, "total_frames": job.chunk.frames, "fps": 100.0}
            send(current_app, names.PART_PROGRESS, {**address, "progress": progress})
        return studio.chunk(job, work)

    looks: list[StreamView] = []
    studio.chunk_seconds = 0.05
    with bus(with_media(settings, chunk_seconds=6), *studio.bodies(), (names.TRANSCODE_CHUNK, chunk)) as running:
        made = Made(running)
        made.end()
        while not looks or looks[-1].replay is None or looks[-1].replay.state in replays.ACTIVE:
            with made.ledger.read() as session:
                looks.append(views.snapshot(session, "s"))
    shown = [look.replay for look in looks if look.replay]
    assert shown[-1].state == "completed"
    assert len({view.frames_done for view in shown}) > 10
    for what in ("progress", "frames_done", "chunks_done", "playable"):
        values = [getattr(view, what) for view in shown]
        assert values == sorted(values), what
    order = [*replays.ACTIVE, "completed"]
    states = [order.index(view.state) for view in shown]
    assert states == sorted(states)
    seen: dict[str, dict[str, Any]] = {}
    for look in looks:
        content = look.model_dump(exclude={"replay": {"eta_seconds"}})
        assert seen.setdefault(look.version, content) == content


# --- what can be watched ----------------------------------------------------------------------------------------------


def test_what_can_be_watched_ends_where_the_first_chunk_is_missing(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00002"}
    with backend(settings, studio) as made:
        made.end()
        until(lambda: made.view().chunks_done == 5, "all others are done")
        names = ("360p/playlist.m3u8", "234p/playlist.m3u8", "audio/playlist.m3u8")
        until(lambda: set(names) <= set(made.files(made.view().prefix)), "it is published")
        until(lambda: len(made.playlist("360p/playlist.m3u8").segments) == 4, "two chunks of two segments")
        made.settle()
        for name in names:
            growing = made.playlist(name)
            assert [segment.uri for segment in growing.segments] == [f"seg-{number:05d}.m4s" for number in range(4)]
            assert sum(segment.duration or 0 for segment in growing.segments) == pytest.approx(24)
            assert (growing.playlist_type, growing.is_endlist) == ("event", False)
        studio.release()
        made.wait("completed")
        for name in names:
            assert sum(segment.duration or 0 for segment in made.playlist(name).segments) == pytest.approx(60)


def test_the_summary_is_of_what_is_in_the_store(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        view = made.wait("completed")
        summary = json.loads(made.store.get_bytes(view.prefix + "replay.json"))
        files = {name: made.store.get_bytes(view.prefix + name) for name in made.files(view.prefix)}
    assert set(summary) == {
        "version", "replay_id", "stream_id", "source", "plan", "notes", "rungs", "made_on", "audio", "pictures",
        "timings", "checks",
    }  # fmt: skip
    assert (summary["version"], summary["replay_id"], summary["stream_id"]) == (1, replay_id, "s")
    assert (summary["source"]["source"], summary["source"]["duration_seconds"]) == ("60s.mp4", 60)
    plan = Plan.model_validate(summary["plan"])
    assert (plan.frames, float(plan.duration_seconds), len(plan.chunks)) == (1800, 60, 6)
    for rung, planned in zip(summary["rungs"], plan.rungs, strict=True):
        segments = [data for name, data in files.items() if name.startswith(f"{rung['name']}/seg-")]
        size = sum(len(data) for data in segments)
        assert rung == {
            "name": planned.name,
            "encoder": planned.encoder,
            "codecs": "avc1.64001f",
            "frames": 1800,
            "segments": len(segments),
            "average_bps": round(size * 8 / 60),
            "peak_bps": rung["peak_bps"],
            "bytes": size,
            "init_sha256": hashlib.sha256(files[f"{rung['name']}/init.mp4"]).hexdigest(),
            "seconds": 60,
        }
        assert rung["peak_bps"] >= rung["average_bps"] > 0
    sound = {"name": "audio", "mode": "copy", "codecs": "mp4a.40.2", "average_bps": 133, "seconds": 60}
    assert summary["audio"] == [sound | {"loudness_lufs": None}]  # 10 segments of 100 bytes
    assert {summary["pictures"]["poster"]["name"], summary["pictures"]["storyboard"]} <= set(files)
    assert summary["timings"]["transcoding_seconds"] == pytest.approx(6 * 0.1)
    assert summary["timings"]["chunks_reused"] == 0
    marks = ("created_at", "started_at", "planned_at", "playable_at", "completed_at")
    times = [datetime.fromisoformat(summary["timings"][mark]) for mark in marks]
    assert times == sorted(times)
    assert all(mark.tzinfo for mark in times)
    assert summary["checks"] == {"frames_as_planned": True, "one_init_per_rung": True, "audio_as_long_as_video": True}
    assert summary["notes"] == []
    (made_on,) = summary["made_on"]
    assert (made_on["device"], made_on["tier"], made_on["chunks"], made_on["fallbacks"]) == ("cpu", "cpu", 6, 0)


def test_what_is_published_once_was_playable_then(settings: Settings, studio: Studio) -> None:
    studio.held = {"audio"}
    with backend(settings, studio) as made:
        replay_id = made.end(recording="6s.mp4")
        until(lambda: len(made.parts(replay_id, state="done")) == 3, "recording, chunk and pictures are done")
        studio.release()
        view = made.wait("completed")
        times = json.loads(made.store.get_bytes(view.prefix + "replay.json"))["timings"]
    assert times["playable_at"] == times["completed_at"]
    assert view.playable_at
    assert view.playable_at >= datetime.fromisoformat(times["playable_at"])


# --- answers of a run that is over ------------------------------------------------------------------------------------


def test_an_answer_of_an_earlier_run_changes_nothing(settings: Settings, studio: Studio) -> None:
    studio.errors = {"chunk-00001": unusable("it is cut off")}
    with backend(settings, studio) as made:
        replay_id = made.end()
        made.wait("failed")
        studio.errors = {}
        studio.held = {"chunk-00001"}
        made.do(streams.retry)
        until(lambda: made.view().chunks_done == 5, "all others are done")
        made.settle()
        before = made.view()
        result = made.parts(replay_id)["chunk-00000"].result
        late = {"replay_id": replay_id, "run": 1, "part": "chunk-00001"}
        progress = {"done_frames": 300, "total_frames": 360, "fps": 9.0}
        send(made.app, names.PART_DONE, {**late, "result": result})
        send(made.app, names.PART_FAILED, {**late, "problem": {"code": "encoder-failed", "detail": "late"}})
        send(made.app, names.PART_PROGRESS, {**late, "progress": progress})
        send(made.app, names.PUBLISH_REPLAY, {"replay_id": replay_id, "run": 1})
        time.sleep(0.4)  # they are handled
        after = made.view()
        assert after.model_dump(exclude={"eta_seconds"}) == before.model_dump(exclude={"eta_seconds"})
        assert made.parts(replay_id)["chunk-00001"].state == "sent"
        studio.release()
        made.wait("completed")


def test_pictures_that_come_after_all_are_no_longer_missed(settings: Settings, studio: Studio) -> None:
    studio.errors = {"pictures": unusable("all is black"), "chunk-00003": unusable("it is cut off")}
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        made.end()
        until(lambda: made.view().notes, "the pictures failed")
        studio.release()
        assert [note.code for note in made.wait("failed").notes] == ["pictures-failed"]
        studio.errors = {}
        made.do(streams.retry)
        view = made.wait("completed")
        assert view.notes == []
        assert "poster.jpg" in made.files(view.prefix)


# --- nothing is left behind -------------------------------------------------------------------------------------------


def test_a_file_that_is_being_stored_when_all_is_removed_is_removed_too(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on, stored = threading.Event(), threading.Event(), threading.Event()
    put = LocalStore.put_file

    def slow(self: LocalStore, key: str, path: Path) -> None:
        late = key.endswith("234p/seg-00000.m4s")
        if late:
            storing.set()
            assert go_on.wait(10)
        put(self, key, path)
        if late:
            stored.set()

    monkeypatch.setattr(LocalStore, "put_file", slow)
    monkeypatch.setattr(workflows, "_AGAIN_SECONDS", 0.3)
    studio.held = {"chunk-00001"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        assert storing.wait(10)
        until(lambda: len(studio.made) == 3, "recording, sound and pictures are done")
        made.settle()  # no other answer comes, after which there would be a look anyway
        made.do(streams.cancel)
        until(lambda: cleaned_at(made.ledger, replay_id), "what there was is removed")
        assert made.files(f"replays/{replay_id}/") == set()
        go_on.set()
        assert stored.wait(10)
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "it is removed")


def cleaned_at(ledger: Ledger, replay_id: str) -> datetime | None:
    with ledger.read() as session:
        return replays.get(session, replay_id).cleaned_at


@pytest.mark.parametrize("how", ["the process was lost", "the bus was lost"])
def test_what_a_cancelled_replay_left_is_removed_though_nobody_was_told(
    settings: Settings, studio: Studio, how: str
) -> None:
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done == 5, "nearly all of it is there")
    with made.ledger.write() as session:
        streams.cancel(session, "s")
    forget_messages(made.ledger)
    assert made.files(f"replays/{replay_id}/")
    if how == "the bus was lost":
        reconcile(made.ledger, settings.media)
        with made.ledger.write() as session:
            assert outbox.depth(session) == 0  # it may still be on its way
            session.execute(update(Replay).values(finished_at=now() - timedelta(minutes=5)))
        reconcile(made.ledger, settings.media)
    with backend(settings, studio) as made:
        until(lambda: cleaned_at(made.ledger, replay_id), "somebody saw to it")
        assert made.files(f"replays/{replay_id}/") == set()
    forget_messages(made.ledger)
    reconcile(made.ledger, settings.media, bus_is_empty=True)
    with made.ledger.read() as session:
        assert outbox.depth(session) == 0  # once is enough


def test_a_failed_replay_is_hidden_though_nobody_was_told(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().playable, "it can be watched")
    manifest = f"replays/{replay_id}/.work/chunk-00003.json"
    made.store.put_bytes(manifest, b"{}")
    with made.ledger.write() as session:
        replay = replays.get(session, replay_id)
        assert parts.move(session, replay_id, "chunk-00003", ("sent",), "failed")
        assert replays.move(session, replay, ("transcoding",), "failed", problem_code="c", problem_detail="d")
    assert made.store.size(f"replays/{replay_id}/master.m3u8")
    with backend(settings, Studio()) as made:
        until(lambda: cleaned_at(made.ledger, replay_id), "somebody saw to it")
        files = made.files(f"replays/{replay_id}/")
        assert "master.m3u8" not in files
        assert ".work/chunk-00003.json" not in files  # the one that did not fit is made anew
        assert ".work/chunk-00000.json" in files  # the others are kept for another try
        made.do(streams.retry)
        made.wait("completed")


# --- the process is lost in between -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["while it wrote playlists", "after it had tidied up"])
def test_lost_while_publishing_it_publishes_again_at_once(settings: Settings, studio: Studio, moment: str) -> None:
    """What a dead process had claimed is free: nobody waits for the claim to run out."""
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done == 5, "one is missing")
        example = made.parts(replay_id)["chunk-00002"].result
    assert example
    whole = json.loads(json.dumps(example).replace("seg-00004", "seg-00006").replace("seg-00005", "seg-00007"))
    with made.ledger.write() as session:
        assert parts.mark_done(session, replay_id, "chunk-00003", whole | {"index": 3})
        replays.touch(session, replay_id, publishing_since=now())
    if moment == "after it had tidied up":
        open_store(settings.storage).delete_prefix(f"replays/{replay_id}/.work/")
    again = Studio()
    with backend(settings, again) as made:
        made.wait("completed", seconds=5)
        assert made.playlist("360p/playlist.m3u8").is_endlist
    assert again.made == []


def test_a_replay_that_cannot_go_on_does_not_keep_the_others_from_it(
    settings: Settings, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of this program planned it, say."""
    studio.held = {"chunk-00001"}
    with backend(with_media(settings, concurrency=4), studio) as made:
        broken = made.end("broken", "24s.mp4")
        made.end("sound", "24s.mp4")
        for stream in ("broken", "sound"):
            until(lambda stream=stream: all_but_one(made.view(stream)), "nearly all of it")  # type: ignore[misc]
    with made.ledger.write() as session:
        replays.touch(session, broken, plan={"of": "the future"})
    with backend(settings, Studio()) as made:
        made.wait("completed", "sound")
        assert made.view("broken").state == "transcoding"
        with made.ledger.write() as session:  # what is silent is looked at by the clock, too
            session.execute(update(Part).values(heartbeat_at=now() - timedelta(hours=1)))
        assert reconcile(made.ledger, settings.media) == 0
    assert f"replay={broken} cannot go on" in caplog.text
