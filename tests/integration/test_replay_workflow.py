"""From a stream's end to its replay, on the real bus and ledger, with a media tier that needs no ffmpeg."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import select, update

from control.bus import names
from control.bus.messages import Complexity, ComplexityPoint
from control.bus.publish import send
from control.ledger import outbox, replays, streams
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow, Part, Replay
from control.settings import Settings
from control.storage import LocalStore, ObjectStore
from pipelines import publish as publish_module
from pipelines.reconcile import reconcile
from tests.backend import backend, with_media
from tests.bus import until
from tests.fake_media import Studio


@pytest.fixture
def studio() -> Studio:
    return Studio()


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_from_the_end_of_a_stream_to_its_replay(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        view = made.wait("completed")
        assert made.events() == ["stream.ended", "replay.planned", "replay.playable", "replay.completed"]
        assert (view.progress, view.playable, view.problem) == (1.0, True, None)
        assert view.frames_done == view.frames_total == 1800
        assert view.chunks_done == view.chunks_total == len([name for name in studio.made if "chunk" in name])
        files = made.files(f"replays/{replay_id}/")
        assert not [name for name in files if name.startswith(".work")]
        assert {"master.m3u8", "replay.json", "poster.jpg", "storyboard.vtt", "audio/playlist.m3u8"} <= files
        master = made.playlist("master.m3u8")
        assert {playlist.uri for playlist in master.playlists} == {"360p/playlist.m3u8", "234p/playlist.m3u8"}
        for rung in ("360p", "234p"):
            video = made.playlist(f"{rung}/playlist.m3u8")
            assert (video.playlist_type, video.is_endlist) == ("vod", True)
            assert sum(segment.duration or 0 for segment in video.segments) == pytest.approx(60)
            assert {segment.uri for segment in video.segments} <= {
                name.removeprefix(f"{rung}/") for name in files if name.startswith(f"{rung}/seg-")
            }
            assert made.playlist(f"{rung}/iframes.m3u8").is_i_frames_only
        summary = json.loads(made.store.get_bytes(view.prefix + "replay.json"))
        assert set(summary["checks"].values()) == {True}
        assert [rung["frames"] for rung in summary["rungs"]] == [1800, 1800]
        assert "keyframes" not in summary["source"]["video"]


def test_it_can_be_watched_while_it_is_made(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00002", "chunk-00003"}
    with backend(settings, studio) as made:
        made.end()
        until(lambda: made.view().playable, "it plays")
        master = made.playlist("master.m3u8")
        for name in [str(each.uri) for each in (*master.playlists, *master.media)]:
            growing = made.playlist(name)
            assert (growing.playlist_type, growing.is_endlist) == ("event", False)
            assert 0 < sum(segment.duration or 0 for segment in growing.segments) < 60
            folder = made.view().prefix + name.rpartition("/")[0]
            assert all(made.store.size(f"{folder}/{segment.uri}") for segment in growing.segments)
        assert made.view().state == "transcoding"
        assert made.store.size(made.view().prefix + "replay.json") is None
        studio.release()
        made.wait("completed")
        assert made.playlist("360p/playlist.m3u8").is_endlist


def test_nothing_is_playable_before_the_sound_is_there(settings: Settings, studio: Studio) -> None:
    studio.held = {"audio"}
    with backend(with_media(settings, concurrency=3), studio) as made:
        replay_id = made.end()
        until(lambda: len(made.parts(replay_id, kind="chunk", state="done")) == 6, "all chunks are done")
        made.settle()
        assert not made.view().playable
        assert "master.m3u8" not in made.files(made.view().prefix)
        studio.release()
        made.wait("completed")


def test_the_master_comes_last(settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees it finds all it leads to."""
    order: list[str] = []
    put = LocalStore.put_bytes

    def spy(self: LocalStore, key: str, data: bytes) -> None:
        put(self, key, data)
        if not key.endswith(".json") or key.endswith("replay.json"):
            order.append(key.split("/", 2)[2])

    monkeypatch.setattr(LocalStore, "put_bytes", spy)
    with backend(settings, studio) as made:
        made.end()
        made.wait("completed")
    ends = [number for number, name in enumerate(order) if name == "master.m3u8"]
    assert ends[-1] == len(order) - 1
    assert set(order[: ends[0]]) >= {"360p/playlist.m3u8", "360p/iframes.m3u8", "audio/playlist.m3u8"}


# --- windows and fairness ---------------------------------------------------------------------------------------------


def test_so_many_chunks_of_one_stream_are_on_the_bus(settings: Settings, studio: Studio) -> None:
    studio.chunk_seconds = 0.02
    most = 0
    with backend(with_media(settings, chunks_in_flight=3, chunk_seconds=6), studio) as made:
        replay_id = made.end(recording="180s.mp4")
        while made.view().state in replays.ACTIVE:
            sent = len(made.parts(replay_id, kind="chunk", state="sent"))
            assert sent <= 3
            most = max(most, sent)
        assert made.view().state == "completed"
    assert most == 3


def test_a_long_stream_does_not_starve_a_short_one(settings: Settings, studio: Studio) -> None:
    studio.chunk_seconds = 0.03
    with backend(with_media(settings, chunks_in_flight=2, chunk_seconds=6), studio) as made:
        made.end("long", "1200s.mp4")
        until(lambda: made.view("long").chunks_done >= 2, "the long one is under way")
        made.end("short", "12s.mp4")
        made.wait("completed", "short")
        long = made.view("long")
        assert long.state == "transcoding"
        assert long.chunks_done < long.chunks_total / 2


def test_the_window_refills_on_reconciling(settings: Settings, studio: Studio) -> None:
    """Whatever emptied it: pending chunks and an empty bus may not stay that way."""
    studio.held = {"chunk-00000", "chunk-00001"}
    with backend(with_media(settings, chunks_in_flight=2), studio) as made:
        replay_id = made.end()
        until(lambda: len(made.parts(replay_id, kind="chunk", state="sent")) == 2, "the window is full")
        with made.ledger.write() as session:  # as if their messages and all that followed were lost
            session.execute(update(Part).where(Part.kind == "chunk").values(state="pending"))
        reconcile(made.ledger, with_media(settings, chunks_in_flight=2).media)
        assert len(made.parts(replay_id, kind="chunk", state="sent")) == 2
        studio.release()
        made.wait("completed")


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_of_a_running_chunk_is_seen(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00000"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done == 5, "the others are done")
        progress = {"done_frames": 180, "total_frames": 360, "fps": 60.0}
        address = {"replay_id": replay_id, "run": 1, "part": "chunk-00000"}
        send(made.app, names.PART_PROGRESS, {**address, "progress": progress})
        until(lambda: made.view().frames_done == 1620, "it is seen")
        view = made.view()
        assert (view.fps, view.speed) == (60.0, 2.0)
        assert view.eta_seconds == pytest.approx(180 / 60)
        assert 0.85 < view.progress < 0.95
        studio.release()
        assert made.wait("completed").frames_done == 1800


# --- resume -----------------------------------------------------------------------------------------------------------


def test_it_goes_on_after_the_process_was_lost(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done >= 3, "half of it is done")
        kept = set(studio.made)
    again = Studio()
    with backend(settings, again) as made:
        assert made.wait("completed").prefix == f"replays/{replay_id}/"
        assert f"{replay_id}/chunk-00003" in again.made
        assert not kept & set(again.made)
        summary = json.loads(made.store.get_bytes(f"replays/{replay_id}/replay.json"))
        assert set(summary["checks"].values()) == {True}


def test_a_replay_keeps_the_rates_its_first_chunk_was_made_at(settings: Settings, studio: Studio) -> None:
    """What its content asked for is in the plan, which is made once, whatever the settings are when it goes on."""
    needs = ((360, 200), (180, 60))
    points = [ComplexityPoint(short_side=side, mean_kbps=kbps, busy_kbps=kbps) for side, kbps in needs]
    studio.complexity = Complexity(crf=19, frame_rate=Fraction(30), places=4, points=tuple(points))
    studio.size_bytes = 60 * 1_000_000
    studio.held = {"chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done >= 3, "half of it is done")
    with backend(with_media(settings, content_aware=False), Studio()) as made:
        made.wait("completed")
        summary = json.loads(made.store.get_bytes(f"replays/{replay_id}/replay.json"))
    assert [(rung["name"], rung["video_kbps"]) for rung in summary["plan"]["rungs"]] == [("360p", 250), ("234p", 145)]
    assert summary["plan"]["ladder"][0]["why"] == "its pictures need no more"
    assert summary["source"]["complexity"]["places"] == 4


def test_a_chunk_that_was_stored_but_not_answered_is_not_made_again(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        studio.held = {"chunk-00004"}
        replay_id = made.end()
        until(lambda: made.view().chunks_done == 5, "five are done")
        made.settle()
    with Ledger(settings.ledger.url).write() as session:  # the answers were lost with the bus
        session.execute(update(Part).where(Part.kind == "chunk").values(state="sent", result=None))
    again = Studio()
    with backend(settings, again) as made:
        made.wait("completed")
        assert [name for name in again.made if "chunk" in name] == [f"{replay_id}/chunk-00004"]
        summary = json.loads(made.store.get_bytes(f"replays/{replay_id}/replay.json"))
        assert summary["timings"]["chunks_reused"] == 5


@pytest.mark.parametrize("how", ["in the outbox", "lost on the bus"])
def test_accepted_and_lost_at_once_it_is_made_all_the_same(settings: Settings, studio: Studio, how: str) -> None:
    ledger = Ledger(settings.ledger.url)
    ledger.upgrade()
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        streams.end(session, "s", recording="12s.mp4")
        if how == "lost on the bus":
            session.flush()
            outbox.sent(session, [row.id for row in session.scalars(select(OutboxRow))])
    with backend(settings, studio) as made:
        made.wait("completed")


def test_the_clock_sends_again_only_what_is_silent(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00000", "chunk-00001"}
    with backend(with_media(settings, chunks_in_flight=2), studio) as made:
        replay_id = made.end()
        until(lambda: len(made.parts(replay_id, kind="chunk", state="sent")) == 2, "two are on the bus")
        made.settle()
        assert reconcile(made.ledger, settings.media) == 0
        with made.ledger.write() as session:
            old = now() - timedelta(hours=1)
            where = (Part.name == "chunk-00000") & (Part.state == "sent")
            assert session.execute(update(Part).where(where).values(heartbeat_at=old)).rowcount == 1  # type: ignore[attr-defined]
        assert reconcile(made.ledger, settings.media) == 1
        assert reconcile(made.ledger, settings.media) == 0
        studio.release()
        made.wait("completed")


def test_a_fact_that_nobody_handled_is_noticed_by_the_clock(settings: Settings) -> None:
    ledger = Ledger(settings.ledger.url)
    ledger.upgrade()
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        replay_id = streams.end(session, "s", recording="a.mp4").id
    reconcile(ledger, settings.media)
    with ledger.read() as session:
        assert replays.get(session, replay_id).state == "waiting"  # just now: it may still be on its way
    with ledger.write() as session:
        session.execute(update(Replay).values(updated_at=now() - timedelta(minutes=5)))
    reconcile(ledger, settings.media)
    with ledger.read() as session:
        assert replays.get(session, replay_id).state == "probing"


# --- messages that come twice, late, or for another run ---------------------------------------------------------------


def test_answers_that_come_twice_change_nothing(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00004"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done == 5, "five are done")
        made.settle()
        before = made.parts(replay_id)
        for part in before.values():
            if part.state == "done":
                answer = {"replay_id": replay_id, "run": 1, "part": part.name, "result": part.result}
                send(made.app, names.PART_DONE, answer)
        failure = {"code": "encoder-failed", "detail": "late"}
        late = {"replay_id": replay_id, "run": 1, "part": "chunk-00000", "problem": failure}
        send(made.app, names.PART_FAILED, late)
        time.sleep(0.3)
        made.settle()
        after = made.parts(replay_id)
        assert {name: (part.state, part.done_at) for name, part in after.items()} == {
            name: (part.state, part.done_at) for name, part in before.items()
        }
        assert made.view().state == "transcoding"
        studio.release()
        made.wait("completed")
        assert made.events().count("replay.completed") == made.events().count("replay.playable") == 1


def test_facts_that_come_twice_start_one_replay(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end(recording="12s.mp4")
        facts = {"replay_id": replay_id, "run": 1, "prefix": f"replays/{replay_id}/"}
        for _ in range(3):
            send(made.app, names.HANDLE_FACT, {"fact": "stream.ended", "facts": facts})
        made.wait("completed")
        made.settle()
        assert sorted(studio.made) == sorted(set(studio.made))
        assert studio.made.count(f"{replay_id}/recording") == 1


def test_playlists_are_written_by_one_at_a_time_and_never_go_back(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = threading.Semaphore(1)
    lengths: list[int] = []
    write = publish_module._write

    def slow(store: ObjectStore, replay: Any, done: Any, *, complete: bool) -> float:
        assert at_once.acquire(blocking=False), "two write playlists of one replay"
        try:
            time.sleep(0.05)
            seconds = write(store, replay, done, complete=complete)
            lengths.append(round(seconds))
            return seconds
        finally:
            at_once.release()

    monkeypatch.setattr(publish_module, "_write", slow)
    with backend(with_media(settings, chunk_seconds=6, concurrency=4), studio) as made:
        made.end(recording="120s.mp4")
        made.wait("completed", seconds=30)
        assert made.playlist("360p/playlist.m3u8").is_endlist
    assert lengths == sorted(lengths)
    assert lengths[-1] == 120
