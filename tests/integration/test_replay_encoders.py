"""Which encoder makes a replay, and what becomes of it when that one is gone: on the real bus and ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from control.bus import names
from control.bus.embedded import NODE
from control.bus.messages import ChunkResult, NodeReport, Plan
from control.bus.publish import send
from control.errors import AfterliveError, InputError
from control.ledger import failures, nodes, replays, streams, tasks
from control.ledger.base import now
from control.ledger.models import OutboxRow
from control.ledger.node_models import Node
from control.settings import MediaSettings, Settings
from pipelines.reconcile import reconcile
from tests.backend import Made, backend, with_media
from tests.bus import until
from tests.fake_media import Studio
from tests.nodes import CPU, capability, node

NVENC, VAAPI = capability("h264_nvenc"), capability("h264_vaapi")
HERE = NODE
"""The one media worker that really works in these tests."""


@pytest.fixture
def studio() -> Studio:
    return Studio()


@contextmanager
def with_nodes(settings: Settings, studio: Studio, *reports: NodeReport, **media: Any) -> Iterator[Made]:
    """A back end that these nodes have told what they can; all the work is done by its own worker."""
    with backend(with_media(settings, **media), studio) as made:
        heard(made, *reports)
        yield made


def heard(made: Made, *reports: NodeReport) -> None:
    """As the nodes' workers tell it."""
    for report in reports:
        send(made.app, names.NODE_REPORT, {"node": report.node, "report": report.model_dump(mode="json")})

    def known() -> bool:
        with made.ledger.read() as session:
            there = {one.node: one.capabilities for one in nodes.alive(session, 60)}
        return all(there.get(report.node) == report.capabilities for report in reports)

    until(known, "the ledger has their reports")


def plan(made: Made, replay_id: str) -> Plan:
    with made.ledger.read() as session:
        return Plan.model_validate(replays.get(session, replay_id).plan)


def encoders(made: Made, replay_id: str) -> set[str]:
    return {rung.encoder for rung in plan(made, replay_id).rungs}


def happened(made: Made, name: str) -> list[dict[str, Any]]:
    from control.ledger import views

    with made.ledger.read() as session:
        return [event.data for event in views.events_after(session, "s", 0) if event.name == name]


def repinned(encoder: str, to: str, reason: str) -> float:
    labels = {"encoder": encoder, "to": to, "reason": reason}
    return REGISTRY.get_sample_value("afterlive_rungs_repinned_total", labels) or 0.0


def went(made: Made, replay_id: str, task: str) -> list[str]:
    """Queues the replay's tasks of that kind went to."""
    with made.ledger.read() as session:
        return [row.queue for row in tasks.of_key(session, replay_id) if row.task == task]


def whole(made: Made, replay_id: str) -> None:
    """It is complete, of one piece, and nothing of an encoder it left is there."""
    summary = json.loads(made.store.get_bytes(f"replays/{replay_id}/replay.json"))
    assert set(summary["checks"].values()) == {True}
    now_ = plan(made, replay_id)
    assert [rung["name"] for rung in summary["rungs"]] == [rung.name for rung in now_.rungs]
    for rung in now_.rungs:
        playlist = made.playlist(f"{rung.name}/playlist.m3u8")
        assert playlist.is_endlist
        assert sum(segment.duration or 0 for segment in playlist.segments) == pytest.approx(60)
        for segment in playlist.segments:
            assert made.store.size(f"replays/{replay_id}/{rung.name}/{segment.uri}")
        assert made.store.get_bytes(f"replays/{replay_id}/{rung.name}/init.mp4") == f"init of {rung.encoder}".encode()
    for part in made.parts(replay_id, kind="chunk").values():
        tracks = ChunkResult.model_validate(part.result).tracks
        assert [track.name for track in tracks] == [rung.name for rung in now_.rungs]
    files = made.files(f"replays/{replay_id}/")
    folders = {name.partition("/")[0] for name in files if "/" in name}
    assert folders == {*(rung.name for rung in now_.rungs), "audio", "storyboard"}


# --- pinning ----------------------------------------------------------------------------------------------------------


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


# --- an encoder that cannot be had ------------------------------------------------------------------------------------


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
        until(lambda: encoders_or_none(made, replay_id) == {"libx264"}, "it is planned again")
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
        until(lambda: encoders_or_none(made, replay_id) == {"libx264"}, "it is planned again")
        studio.inits = {}
        made.wait("completed")
        (told,) = happened(made, "replay.replanned")
        assert (told["encoder"], told["to"], told["reason"]) == ("h264_nvenc", ["libx264"], "mixed")
        whole(made, replay_id)


# --- an encoder that nobody has any more ------------------------------------------------------------------------------


def silent(made: Made, name: str, seconds: float) -> None:
    """As if nothing had been heard of it for so long."""
    at = now() - timedelta(seconds=seconds)
    with made.ledger.write() as session:
        usable = {encoder: at.isoformat() for encoder in session.get_one(Node, name).usable_at}
        session.execute(update(Node).where(Node.name == name).values(heard_at=at, usable_at=usable))


def test_a_family_whose_last_node_is_gone_is_given_up(settings: Settings, studio: Studio) -> None:
    before = repinned("h264_nvenc", "libx264", "lost")
    studio.held = {"chunk-00002"}
    media = with_media(settings, report_seconds=0.1).media
    with with_nodes(settings, studio, node("gpu-1", NVENC), report_seconds=0.1) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, kind="chunk", state="done"), "some are done")
        silent(made, "gpu-1", media.node_lost_seconds - 30)
        reconcile(made.ledger, media)
        made.settle()
        assert encoders(made, replay_id) == {"h264_nvenc"}  # it may be back yet
        silent(made, "gpu-1", media.node_lost_seconds + 1)
        reconcile(made.ledger, media)
        until(lambda: encoders(made, replay_id) == {"libx264"}, "it is planned again")
        assert happened(made, "replay.replanned")[0]["reason"] == "lost"
        studio.release()
        made.wait("completed")
        whole(made, replay_id)
        assert repinned("h264_nvenc", "libx264", "lost") == before + 2


def test_after_an_outage_the_first_reports_come_first(settings: Settings, studio: Studio) -> None:
    """Everybody seems to be gone: it is looked at once more when they have had the time to say that they are not."""
    studio.held = {"chunk-00002"}
    media = with_media(settings, report_seconds=0.5).media
    with with_nodes(settings, studio, node("gpu-1", NVENC), report_seconds=0.5) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, kind="chunk", state="done"), "some are done")
        silent(made, "gpu-1", 3600)
        reconcile(made.ledger, media)
        heard(made, node("gpu-1", NVENC))

        def looked() -> bool:
            with made.ledger.read() as session:
                return not [row for row in session.query(OutboxRow).all() if row.task == names.HANDLE_FACT.name]

        until(looked, "it was looked at again")
        made.settle()
        assert encoders(made, replay_id) == {"h264_nvenc"}
        studio.release()
        made.wait("completed")
        assert "replay.replanned" not in made.events()


def test_a_node_without_the_device_is_no_help(settings: Settings, studio: Studio) -> None:
    """It is alive, and says that its GPU does not work."""
    studio.held = {"chunk-00002"}
    media = with_media(settings, report_seconds=0.1).media
    with with_nodes(settings, studio, node("gpu-1", NVENC, VAAPI), report_seconds=0.1) as made:
        replay_id = made.end()
        until(lambda: made.parts(replay_id, kind="chunk", state="done"), "some are done")
        silent(made, "gpu-1", 3600)
        dead = NVENC.model_copy(update={"usable": False, "reason": "Cannot load libcuda.so.1"})
        heard(made, node("gpu-1", dead, VAAPI))
        reconcile(made.ledger, media)
        until(lambda: encoders(made, replay_id) == {"h264_vaapi"}, "it is planned again")
        studio.release()
        made.wait("completed")
        whole(made, replay_id)


def test_what_is_done_needs_no_encoder(settings: Settings, studio: Studio) -> None:
    studio.held = {"pictures"}
    media = with_media(settings, report_seconds=0.1).media
    with with_nodes(settings, studio, node("gpu-1", NVENC), report_seconds=0.1) as made:
        replay_id = made.end()
        until(lambda: made.view().chunks_total and made.view().chunks_done == made.view().chunks_total, "all are done")
        silent(made, "gpu-1", 3600)
        reconcile(made.ledger, media)
        made.settle()
        assert encoders(made, replay_id) == {"h264_nvenc"}
        studio.release()
        made.wait("completed")


# --- one machine ------------------------------------------------------------------------------------------------------


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


# --- beside the rest of a replay's life -------------------------------------------------------------------------------


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
        until(lambda: encoders_or_none(made, replay_id) == {"libx264"}, "it is planned again")
        made.do(streams.cancel)
        studio.release()
        until(lambda: not made.files(f"replays/{replay_id}/"), "nothing is left")


def encoders_or_none(made: Made, replay_id: str) -> set[str] | None:
    with made.ledger.read() as session:
        found = replays.get(session, replay_id).plan
    return {rung.encoder for rung in Plan.model_validate(found).rungs} if found else None
