"""Sound and pictures are made while it is still looked at how many bits the content needs."""

from __future__ import annotations

from typing import Any

import pytest

from control.bus import names
from control.bus.messages import Complexity, ComplexityPoint, MediaInfo
from control.bus.publish import send
from control.errors import InputError
from control.ledger import streams
from control.settings import Settings
from tests.backend import Made, backend, with_media
from tests.bus import until
from tests.fake_media import Studio
from tests.unit import facts

EARLY = {"audio", "pictures"}
STILL = Complexity(crf=19, frame_rate=30, places=4, points=(
    ComplexityPoint(short_side=360, mean_kbps=100, busy_kbps=120),
    ComplexityPoint(short_side=180, mean_kbps=40, busy_kbps=50),
))  # fmt: skip


@pytest.fixture
def studio() -> Studio:
    """The look at the content takes until it is released."""
    studio = Studio()
    studio.held = {"recording"}
    studio.complexity = STILL
    return studio


def begun(made: Made, replay_id: str) -> None:
    until(lambda: made.parts(replay_id, state="done").keys() == EARLY, "sound and pictures are done")


def told(made: Made, replay_id: str) -> dict[str, Any]:
    """What the recording's task says as soon as it has probed it."""
    info = facts.info(facts.video(640, 360, seconds=60), facts.audio(end_seconds=60))
    info = MediaInfo.model_validate(info.model_copy(update={"source": "60s.mp4"}))
    return {"replay_id": replay_id, "run": 1, "part": names.PROBED, "result": info.model_dump(mode="json")}


def test_they_do_not_wait_for_the_plan(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        begun(made, replay_id)
        view = made.view()
        assert (view.state, view.progress, view.chunks_total, view.playable) == ("probing", 0.0, 0, False)
        assert "replay.planned" not in made.events()
        studio.release()
        view = made.wait("completed")
        # Chosen by the content: what was begun with did not know of it.
        assert [playlist.uri for playlist in made.playlist("master.m3u8").playlists] == ["360p/playlist.m3u8"]
        for part in ("recording", *EARLY):
            assert studio.made.count(f"{replay_id}/{part}") == 1
        assert made.events() == ["stream.ended", "replay.planned", "replay.playable", "replay.completed"]
        assert view.notes == []


def test_it_may_be_told_twice_and_late(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        begun(made, replay_id)
        send(made.app, names.PART_DONE, told(made, replay_id))
        made.settle()
        assert made.view().state == "probing"
        studio.release()
        made.wait("completed")
        before = made.parts(replay_id).keys()
        send(made.app, names.PART_DONE, told(made, replay_id))
        made.settle()
        assert made.view().state == "completed"
        assert made.parts(replay_id).keys() == before
        assert [studio.made.count(f"{replay_id}/{part}") for part in EARLY] == [1, 1]


def test_it_need_not_be_told(settings: Settings, studio: Studio) -> None:
    """A message that is a courtesy may be lost: all begins with the plan then."""
    studio.tells = False
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, state="sent"), "the recording is looked at")
        made.settle()
        assert made.parts(replay_id).keys() == {"recording"}
        studio.release()
        made.wait("completed")
        assert [studio.made.count(f"{replay_id}/{part}") for part in EARLY] == [1, 1]


def test_pictures_that_fail_meanwhile_are_told_of_in_the_end(settings: Settings, studio: Studio) -> None:
    studio.errors = {"pictures": InputError(source="60s.mp4", reason="all is black")}
    with backend(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, state="failed"), "there are none")
        studio.release()
        assert [note.code for note in made.wait("completed").notes] == ["pictures-failed"]


def test_sound_that_fails_meanwhile_is_the_end_of_it(settings: Settings, studio: Studio) -> None:
    studio.errors = {"audio": InputError(source="60s.mp4", reason="it is torn")}
    with backend(settings, studio) as made:
        replay_id = made.end()
        problem = made.wait("failed").problem
        assert problem
        assert "it is torn" in problem.detail
        assert "recording" not in made.parts(replay_id, state="done")
        studio.errors = {}
        studio.release()
        made.do(streams.retry)
        made.wait("completed")


def test_cancelled_meanwhile_nothing_is_left(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        begun(made, replay_id)
        assert made.files(f"replays/{replay_id}/")
        made.do(streams.cancel)
        until(lambda: not made.files(f"replays/{replay_id}/"), "what was made is removed")
        made.settle()
        assert made.view().state == "cancelled"
        assert not [name for name in studio.made if "chunk" in name]


def test_after_a_restart_they_are_not_made_again(settings: Settings, studio: Studio) -> None:
    with backend(settings, studio) as made:
        replay_id = made.end()
        begun(made, replay_id)
    studio.release()
    with backend(settings, studio) as made:
        made.wait("completed")
        assert [studio.made.count(f"{replay_id}/{part}") for part in EARLY] == [1, 1]


def test_with_one_thread_they_come_after_it(settings: Settings, studio: Studio) -> None:
    studio.release()
    with backend(with_media(settings, concurrency=1), studio) as made:
        replay_id = made.end()
        made.wait("completed")
        order = [name.removeprefix(f"{replay_id}/") for name in studio.made]
        assert order[0] == "recording"
        assert set(order[1:3]) == EARLY
