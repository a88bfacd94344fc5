"""What becomes of a replay whose encoder cannot be had: on the real bus and ledger."""

from __future__ import annotations

from typing import Any

import pytest

from control.bus import names
from control.bus.publish import send
from control.errors import AfterliveError, InputError
from control.ledger import failures, nodes, tasks
from control.settings import Settings
from tests.bus import until
from tests.encoders import (
    HERE,
    NVENC,
    VAAPI,
    encoders,
    happened,
    plan,
    repinned,
    whole,
    with_nodes,
)
from tests.fake_media import Studio
from tests.nodes import CPU, capability, node


@pytest.fixture
def studio() -> Studio:
    return Studio()


def test_the_rungs_are_made_again_by_what_is_left(settings: Settings, studio: Studio) -> None:
    """From their start, those chunks too that were done: one init segment serves all of a rung."""
    before = repinned("h264_nvenc", "libx264", "unavailable")
    studio.held = {"chunk-00002", "chunk-00003"}  # whatever comes after them finds out
    with with_nodes(settings, studio, node(HERE, NVENC, CPU)) as made:
        replay_id = made.end()
        until(lambda: len(made.parts(replay_id, kind="chunk", state="done")) >= 2 and made.view().playable, "some are")
        done = len(made.parts(replay_id, kind="chunk", state="done"))
        old = plan(made, replay_id)
        studio.lacks = {"h264_nvenc"}
        studio.release()
        made.wait("completed")
        assert encoders(made, replay_id) == {"libx264"}
        whole(made, replay_id)
        (told,) = happened(made, "replay.replanned")
        assert told["rungs"] == [rung.name for rung in old.rungs]
        assert (told["encoder"], told["to"], told["reason"]) == ("h264_nvenc", ["libx264"], "unavailable")
        assert told["chunks_again"] >= done
        assert repinned("h264_nvenc", "libx264", "unavailable") == before + 2
        again = [name for name in studio.made if name.endswith("chunk-00000")]
        assert len(again) == 2
        with made.ledger.read() as session:
            assert failures.page(session, limit=10) == []  # it is seen to: nobody need look
            (report,) = nodes.alive(session, 60)
            assert not report.can("h264_nvenc", width=640, height=360)

        def finished() -> bool:
            with made.ledger.read() as session:
                rows = [row for row in tasks.of_key(session, replay_id) if row.task == names.TRANSCODE_CHUNK.name]
            return {row.state for row in rows} <= {"SUCCESS", "FAILURE"}

        until(finished, "those of the earlier plan have ended too")  # the last may come after the replay is done


def test_another_gpu_takes_over_before_the_processor(settings: Settings, studio: Studio) -> None:
    studio.lacks = {"h264_nvenc", "h264_vaapi"}
    with with_nodes(settings, studio, node(HERE, NVENC, VAAPI, CPU)) as made:
        replay_id = made.end()
        made.wait("completed")
        assert {rung.name for rung in plan(made, replay_id).rungs} == {"360p-libx264", "234p-libx264"}
        told = [(each["encoder"], each["to"]) for each in happened(made, "replay.replanned")]
        assert told == [("h264_nvenc", ["h264_vaapi"]), ("h264_vaapi", ["libx264"])]
        whole(made, replay_id)


def test_what_other_encoders_made_is_kept(settings: Settings, studio: Studio) -> None:
    narrow = capability("h264_nvenc", max_width=500)
    studio.held = {"chunk-00002", "chunk-00003"}
    with with_nodes(settings, studio, node(HERE, narrow, CPU)) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, kind="chunk", state="done"), "some are done")
        top, low = plan(made, replay_id).rungs
        assert (top.encoder, low.encoder) == ("libx264", "h264_nvenc")
        first = f"replays/{replay_id}/{top.name}/seg-00000.m4s"
        until(lambda: "chunk-00000" in made.parts(replay_id, state="done"), "the first is done")
        made.store.put_bytes(first, b"as it was")
        studio.lacks = {"h264_nvenc"}
        studio.release()
        made.wait("completed")
        assert [rung.name for rung in plan(made, replay_id).rungs] == [top.name, f"{low.name}-libx264"]
        assert made.store.get_bytes(first) == b"as it was"
        assert happened(made, "replay.replanned")[0]["rungs"] == [low.name]
        whole(made, replay_id)


def test_another_node_has_what_this_one_has_not(settings: Settings, studio: Studio, monkeypatch: Any) -> None:
    """Then the chunk goes there; nothing is made again."""
    monkeypatch.setattr("pipelines.replan._AGAIN_SECONDS", 1.0)
    studio.lacks = {"h264_nvenc"}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU), node("gpu-2", NVENC)) as made:
        replay_id = made.end()

        def refused() -> bool:
            return any(part.refused for part in made.parts(replay_id, kind="chunk").values())

        until(refused, "it is refused")
        studio.lacks = set()  # the other one takes it
        made.wait("completed")
        assert encoders(made, replay_id) == {"h264_nvenc"}
        assert "replay.replanned" not in made.events()
        whole(made, replay_id)


def test_nodes_that_only_say_so_are_not_believed_for_ever(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.replan._AGAIN_SECONDS", 0.02)
    studio.lacks = {"h264_nvenc"}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU), node("gpu-2", NVENC)) as made:
        replay_id = made.end()
        made.wait("completed")
        assert encoders(made, replay_id) == {"libx264"}
        whole(made, replay_id)


def test_a_processor_that_refuses_is_for_another_node(
    settings: Settings, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.replan._AGAIN_SECONDS", 0.02)
    studio.lacks = {"libx264"}
    with with_nodes(settings, studio, node(HERE, CPU, refuses_cpu=True), node("cpu-1", CPU)) as made:
        replay_id = made.end()

        def refused() -> int:
            return max((part.refused for part in made.parts(replay_id, kind="chunk").values()), default=0)

        until(lambda: refused() > 4, "it is refused again and again")
        studio.lacks = set()
        made.wait("completed")
        whole(made, replay_id)


def test_a_node_without_what_goes_with_its_gpu_is_done_without(settings: Settings, studio: Studio) -> None:
    """Its report said otherwise; other nodes have the encoder, but not the device the chunk waits for."""
    studio.lacks = {"libx264"}
    narrow = capability("h264_nvenc", max_width=500)
    with with_nodes(settings, studio, node(HERE, narrow, CPU), node("cpu-1", CPU)) as made:
        replay_id = made.end()
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        studio.lacks = set()
        made.wait("completed", seconds=30)
        whole(made, replay_id)


def test_where_all_refuse_it_fails_and_says_why(settings: Settings, studio: Studio) -> None:
    studio.lacks = {"libx264"}
    with with_nodes(settings, studio, node(HERE, CPU, refuses_cpu=True)) as made:
        made.end()
        view = made.wait("failed")
        assert view.problem
        assert (view.problem.code, "libx264" in view.problem.detail) == ("encoder-unavailable", True)


def test_an_answer_of_an_earlier_plan_changes_nothing(settings: Settings, studio: Studio) -> None:
    """One that was in the middle of a chunk when the plan changed, and tells of it, or fails, afterwards."""
    studio.held = {f"chunk-0000{number}" for number in range(1, 5)}  # a thread each
    with with_nodes(settings, studio, node(HERE, NVENC, CPU), concurrency=4) as made:
        replay_id = made.end()
        until(lambda: "chunk-00000" in made.parts(replay_id, state="done"), "the first is done")
        old = made.parts(replay_id)["chunk-00000"].result
        studio.lacks = {"h264_nvenc"}
        studio.held = {"chunk-00001"}
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        address = {"replay_id": replay_id, "run": 1, "part": "chunk-00001", "task_id": "late"}
        send(made.app, names.PART_DONE, address | {"result": old})
        gone = {"code": "encoder-unavailable", "detail": "x", "encoder": "h264_nvenc", "node": HERE}
        send(made.app, names.PART_FAILED, address | {"problem": gone})
        made.settle()
        assert made.parts(replay_id)["chunk-00001"].state in ("sent", "pending")
        studio.release()
        made.wait("completed")
        assert len(happened(made, "replay.replanned")) == 1
        whole(made, replay_id)


def test_a_chunk_that_fails_on_a_gpu_is_made_without(settings: Settings, studio: Studio) -> None:
    """Whatever a driver does; what is wrong with the recording, the processor finds too."""
    studio.fails_on = {"h264_nvenc": AfterliveError(reason="the driver did something new")}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU)) as made:
        replay_id = made.end()
        made.wait("completed")
        (told,) = happened(made, "replay.replanned")
        assert (told["encoder"], told["to"], told["reason"]) == ("h264_nvenc", ["libx264"], "failed")
        whole(made, replay_id)
        studio.errors = {"chunk-00001": InputError(source="a.mp4", reason="it is damaged")}
        made.end("t")
        view = made.wait("failed", "t")
        assert view.problem
        assert view.problem.code == "recording-unusable"


def test_a_chunk_of_an_earlier_plan_that_fails_at_last_is_nobody_s_failure(settings: Settings, studio: Studio) -> None:
    """It was tried again and again meanwhile."""
    studio.held = {"chunk-00001", "chunk-00002"}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU)) as made:
        replay_id = made.end()
        until(lambda: "chunk-00000" in made.parts(replay_id, state="done"), "the first is done")
        old = [rung.name for rung in plan(made, replay_id).rungs]
        studio.lacks = {"h264_nvenc"}
        studio.held = {"chunk-00001"}  # whatever comes after the second finds out
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        gone = {"code": "encoder-failed", "detail": "ffmpeg died", "rungs": old}
        address = {"replay_id": replay_id, "run": 1, "part": "chunk-00001", "task_id": "late"}
        send(made.app, names.PART_FAILED, address | {"problem": gone})
        made.settle()
        assert made.view().state == "transcoding"
        studio.release()
        made.wait("completed")
        assert len(happened(made, "replay.replanned")) == 1
        whole(made, replay_id)


def test_devices_that_are_not_alike_are_done_without(settings: Settings, studio: Studio) -> None:
    """Two cards of one family, and two init segments: the replay is made whole by an encoder that needs none."""
    studio.inits = {"chunk-00002": b"of another card"}
    with with_nodes(settings, studio, node(HERE, NVENC, CPU)) as made:
        replay_id = made.end()
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        studio.inits = {}
        made.wait("completed")
        (told,) = happened(made, "replay.replanned")
        assert (told["encoder"], told["to"], told["reason"]) == ("h264_nvenc", ["libx264"], "mixed")
        whole(made, replay_id)
