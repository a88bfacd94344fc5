"""Which encoder makes a replay: on the real bus and ledger."""

from __future__ import annotations

import pytest

from control.bus import names
from control.bus.messages import NodeReport
from control.ledger import streams
from control.settings import MediaSettings, Settings
from pipelines.reconcile import reconcile
from tests.backend import backend
from tests.bus import until
from tests.encoders import (
    HERE,
    NVENC,
    encoders,
    happened,
    heard,
    silent,
    went,
    whole,
    with_nodes,
)
from tests.fake_media import Studio
from tests.nodes import CPU, node


@pytest.fixture
def studio() -> Studio:
    return Studio()


def test_a_gpu_is_pinned_and_its_queue_is_used(settings: Settings, studio: Studio) -> None:
    with with_nodes(settings, studio, node("gpu-1", NVENC, CPU), node("cpu-1", CPU)) as made:
        replay_id = made.end()
        made.wait("completed")
        assert encoders(made, replay_id) == {"h264_nvenc"}
        assert set(went(made, replay_id, names.TRANSCODE_CHUNK.name)) == {"low_priority.nvenc"}
        for task in (names.PROCESS_STREAM_RECORDING, names.ENCODE_AUDIO, names.GENERATE_STREAM_THUMBNAIL):
            assert went(made, replay_id, task.name) == ["low_priority"]
        assert happened(made, "replay.planned")[0]["encoders"] == ["h264_nvenc"] * 2
        whole(made, replay_id)


def test_without_nodes_all_is_as_ever_whoever_comes_later(settings: Settings, studio: Studio) -> None:
    studio.held = {"chunk-00000"}
    with with_nodes(settings, studio) as made:
        replay_id = made.end()
        until(lambda: made.view().state == "transcoding", "it is planned")
        heard(made, node("gpu-1", NVENC))
        reconcile(made.ledger, settings.media)
        studio.release()
        made.wait("completed")
        assert encoders(made, replay_id) == {"libx264"}
        assert set(went(made, replay_id, names.TRANSCODE_CHUNK.name)) == {"low_priority"}


def test_a_machine_of_its_own_uses_its_gpu_where_it_is_told_to(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Settings] = []

    def report(made: Settings) -> NodeReport:
        asked.append(made)
        return node("this-machine", NVENC, CPU)

    monkeypatch.setattr("control.bus.embedded.report_of", report)
    with backend(settings, studio) as made:
        first = made.end("s")
        made.wait("completed")
        assert encoders(made, first) == {"libx264"}
    assert not asked  # to look takes time
    told = MediaSettings(_env_file=None, **settings.media.model_dump(exclude_unset=True), encoders=["h264_nvenc"])
    with backend(settings.model_copy(update={"media": told}), studio) as made:
        second = made.end("t")
        made.wait("completed", "t")
        assert encoders(made, second) == {"h264_nvenc"}
        assert set(went(made, second, names.TRANSCODE_CHUNK.name)) == {"low_priority.nvenc"}


def test_a_restart_in_the_middle(settings: Settings, studio: Studio) -> None:
    """What was planned for a GPU, in a process that starts without one: it is told so, and planned again."""
    studio.held = {"chunk-00002"}
    with with_nodes(settings, studio, node("gpu-1", NVENC)) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, kind="chunk", state="done"), "some are done")
    studio.lacks = {"h264_nvenc"}
    studio.release()
    with backend(settings, studio) as made:
        silent(made, "gpu-1", 3600)
        made.wait("completed")
        assert encoders(made, replay_id) == {"libx264"}
        whole(made, replay_id)


def test_cancelled_after_it_was_planned_again(settings: Settings, studio: Studio) -> None:
    studio.lacks = {"h264_nvenc"}
    studio.held = {"audio"}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU), concurrency=3) as made:
        replay_id = made.end()
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        made.do(streams.cancel)
        studio.release()
        until(lambda: not made.files(f"replays/{replay_id}/"), "nothing is left")
