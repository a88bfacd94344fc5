"""What becomes of a replay whose encoder nobody has any more: on the real bus and ledger."""

from __future__ import annotations

import pytest

from control.bus import names
from control.ledger.models import OutboxRow
from control.settings import Settings
from pipelines.reconcile import reconcile
from tests.backend import with_media
from tests.bus import until
from tests.encoders import (
    NVENC,
    VAAPI,
    encoders,
    happened,
    heard,
    repinned,
    silent,
    whole,
    with_nodes,
)
from tests.fake_media import Studio
from tests.nodes import node


@pytest.fixture
def studio() -> Studio:
    return Studio()


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
