"""Replays that are cancelled, fail, or are made after all, on the real bus and ledger, with a media tier that needs no
ffmpeg."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from control.bus import names
from control.bus.messages import Problem
from control.bus.publish import send
from control.errors import EncoderFailed, InputError, StorageUnavailable
from control.ledger import streams
from control.ledger.engine import Ledger
from control.settings import Settings
from control.storage import LocalStore, ObjectStore
from pipelines import publish as publish_module
from pipelines import replay as flow
from pipelines import workflows
from tests.backend import backend, with_media
from tests.bus import until
from tests.fake_media import Studio


@pytest.fixture
def studio() -> Studio:
    return Studio()


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_stops_the_work_and_leaves_nothing(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00002", "chunk-00003"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().playable and studio._running == 2, "it plays and two run")
        made.do(streams.cancel)
        assert made.view().state == "cancelled"
        until(lambda: studio._running == 0, "the workers stop", seconds=5)
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "nothing is left")
        assert {part.state for part in made.parts(replay_id).values()} == {"done", "cancelled"}
        assert made.events()[-1] == "replay.cancelled"
        made_before = len(studio.made)
        # A worker that heard nothing of it answers late, and has left its files.
        made.store.put_bytes(f"replays/{replay_id}/360p/seg-00000.m4s", b"late")
        result = made.parts(replay_id)["chunk-00000"].result
        send(made.app, names.PART_DONE, {"replay_id": replay_id, "run": 1, "part": "chunk-00003", "result": result})
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "they are removed again")
        assert made.view().state == "cancelled"
        assert len(studio.made) == made_before


def test_what_was_being_stored_when_the_word_came_is_removed_a_little_later(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "_AGAIN_SECONDS", 0.5)
    studio.held = {"chunk-00000"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_done > 0, "it is being made")
        made.do(streams.cancel)
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "nothing is left")
        made.store.put_bytes(f"replays/{replay_id}/360p/seg-00001.m4s", b"late")
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "nor that")


def test_a_replay_cancelled_before_it_began_never_begins(settings: Settings, studio: Studio) -> None:
    ledger = Ledger(settings.ledger.url)
    ledger.upgrade()
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        streams.end(session, "s", recording="12s.mp4")
        streams.cancel(session, "s")
    with backend(settings, studio) as made:
        made.settle()
        assert made.view().state == "cancelled"
    assert studio.made == []


def test_a_cancelled_replay_can_be_made_after_all(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chunk that is let go at the very moment may still be stored after the first sweep.
    monkeypatch.setattr(workflows, "_AGAIN_SECONDS", 1)
    studio.held = {"chunk-00002"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().playable, "it plays")
        made.do(streams.cancel)
        studio.release()
        made.do(streams.retry)
        view = made.wait("completed")
        assert view.prefix == f"replays/{replay_id}.2/"
        until(lambda: made.files(f"replays/{replay_id}/") == set(), "the first one's files are gone")
        made.settle()
        assert "master.m3u8" in made.files(view.prefix)


# --- failure ----------------------------------------------------------------------------------------------------------


def test_a_part_that_fails_finally_fails_the_replay(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00003"}
    studio.errors = {"chunk-00002": InputError(source="60s.mp4", reason="it is cut off")}
    with backend(settings, studio) as made:
        replay_id = made.end()
        view = made.wait("failed")
        assert view.problem
        assert (view.problem.code, view.problem.detail) == (
            "recording-unusable",
            "The recording 60s.mp4 cannot be used: it is cut off.",
        )
        assert made.events()[-1] == "replay.failed"
        until(lambda: studio._running == 0, "the others stop", seconds=5)
        made.settle()
        states = {name: part.state for name, part in made.parts(replay_id).items()}
        assert states["chunk-00002"] == "failed"
        assert set(states.values()) <= {"done", "failed", "cancelled"}
        files = made.files(view.prefix)
        assert "master.m3u8" not in files
        assert any(name.endswith("/seg-00000.m4s") for name in files)  # kept for another try
        kept = [name for name in studio.made if "chunk" in name]

        studio.errors = {}
        studio.release()
        made.do(streams.retry)
        view = made.wait("completed")
        assert view.problem is None
        assert view.prefix == f"replays/{replay_id}/"
        assert sorted(studio.made) == sorted(set(studio.made))
        assert set(kept) < set(studio.made)
        made.settle()
        assert "master.m3u8" in made.files(view.prefix)


def test_a_passing_fault_is_tried_again(settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.bus.outcome.backoff_seconds", lambda _retry, _attempt: 0.0)
    studio.errors = {"chunk-00001": EncoderFailed(key="k", reason="r")}
    with backend(settings, studio) as made:
        made.end()
        until(lambda: made.view().chunks_done >= 4, "the others are done")
        studio.errors = {}
        made.wait("completed")


def test_a_recording_that_cannot_be_used_says_why(settings: Settings, studio: Studio) -> None:
    studio.errors = {"recording": InputError(source="a.mp4", reason="it is garbage")}
    with backend(settings, studio) as made:
        made.end()
        assert made.wait("failed").problem
        studio.errors = {}
        made.do(streams.retry)
        made.wait("completed")


def test_a_ladder_that_is_wrong_fails_the_replay_and_can_be_mended(settings: Settings, studio: Studio) -> None:
    ladder = settings.media.recording_roots[0].parent / "ladder.toml"
    ladder.write_text("[[rung]]\nshort_side = 360\nkbps = 0\n")
    with backend(with_media(settings, ladder=ladder), studio) as made:
        made.end(recording="12s.mp4")
        problem = made.wait("failed").problem
        assert problem
        assert problem.code == "ladder-invalid"
        ladder.write_text("[[rung]]\nshort_side = 180\nkbps = 200\n")
        made.do(streams.retry)
        made.wait("completed")
        assert [playlist.uri for playlist in made.playlist("master.m3u8").playlists] == ["180p/playlist.m3u8"]


def test_without_pictures_a_replay_is_still_a_replay(settings: Settings, studio: Studio) -> None:
    studio.errors = {"pictures": InputError(source="60s.mp4", reason="all is black")}
    with backend(settings, studio) as made:
        made.end()
        view = made.wait("completed")
        assert [note.code for note in view.notes] == ["pictures-failed"]
        assert "poster.jpg" not in made.files(view.prefix)


def test_a_chunk_whose_init_differs_is_rejected_and_made_again_on_retry(settings: Settings, studio: Studio) -> None:
    """One EXT-X-MAP serves all chunks of a rung; with another encoder's the rest would not decode."""
    studio.inits = {"chunk-00003": b"of another encoder"}
    with backend(settings, studio) as made:
        replay_id = made.end()
        view = made.wait("failed")
        assert view.problem
        assert view.problem.code == "output-rejected"
        made.settle()
        assert made.parts(replay_id)["chunk-00003"].state == "failed"
        assert "master.m3u8" not in made.files(view.prefix)
        studio.inits = {}
        made.do(streams.retry)
        made.wait("completed")
        assert studio.made.count(f"{replay_id}/chunk-00003") == 2
        assert made.store.get_bytes(f"{view.prefix}360p/init.mp4") == b"init of libx264"


def test_failing_twice_the_first_problem_counts(settings: Settings, studio: Studio) -> None:
    studio.errors = {f"chunk-{n:05d}": InputError(source=f"{n}.mp4", reason="r") for n in range(4)}
    with backend(settings, studio) as made:
        made.end()
        first = made.wait("failed").problem
        made.settle()
        assert made.view().problem == first
        assert made.events().count("replay.failed") == 1


def test_a_bug_in_publishing_fails_the_replay_instead_of_waiting_for_ever(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.bus.outcome.backoff_seconds", lambda _retry, _attempt: 0.0)
    monkeypatch.setattr("control.bus.task.may_retry", lambda _error: False)

    def broken(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(publish_module, "master_playlist", broken)
    with backend(settings, studio) as made:
        made.end(recording="12s.mp4")
        problem = made.wait("failed").problem
        assert problem
        assert problem.code == "internal-error"
        assert "a bug" not in problem.detail


def test_a_store_that_is_away_delays_publishing_and_no_more(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStore.put_bytes
    failures: list[str] = []

    def away(self: LocalStore, key: str, data: bytes) -> None:
        if key.endswith(".m3u8") and len(failures) < 2:
            failures.append(key)
            raise StorageUnavailable(key=key, reason="away")
        put(self, key, data)

    monkeypatch.setattr(LocalStore, "put_bytes", away)
    with backend(settings, studio) as made:
        made.end(recording="12s.mp4")
        made.wait("completed")
    assert len(failures) == 2


# --- publishing while the replay's fate is decided otherwise ----------------------------------------------------------


@pytest.mark.parametrize("fate", ["cancelled", "failed", "cancelled and retried"])
def test_playlists_of_what_is_no_more_are_taken_back(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    studio.held = {"chunk-00004"}
    write = publish_module._write
    armed = threading.Event()

    def meanwhile(store: ObjectStore, replay: Any, done: Any, *, complete: bool) -> float:
        if armed.is_set():
            armed.clear()
            if fate == "failed":
                with made.ledger.write() as session:
                    flow.give_up(session, replay.id, 1, Problem(code="encoder-failed", detail="d"))
            else:
                made.do(streams.cancel)
                if fate == "cancelled and retried":
                    made.do(streams.retry)
            time.sleep(0.3)  # its clean-up passes first
        return write(store, replay, done, complete=complete)

    monkeypatch.setattr(publish_module, "_write", meanwhile)
    with backend(settings, studio) as made:
        replay_id = made.end()
        armed.set()
        until(lambda: not armed.is_set(), "it is decided")
        prefix = f"replays/{replay_id}/"
        if fate == "failed":
            made.wait("failed")
            time.sleep(0.5)
            assert "master.m3u8" not in made.files(prefix)
            assert made.files(prefix)
        else:
            time.sleep(0.5)
            until(lambda: made.files(prefix) == set(), "nothing is left")
        if fate == "cancelled and retried":
            studio.release()
            view = made.wait("completed")
            assert view.prefix == f"replays/{replay_id}.2/"
            assert "master.m3u8" in made.files(view.prefix)
