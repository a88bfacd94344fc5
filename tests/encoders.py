"""A back end that media nodes have told what they can, and what encoders a replay has there."""

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
from control.ledger import nodes, replays, tasks, views
from control.ledger.base import now
from control.ledger.node_models import Node
from control.settings import Settings
from tests.backend import Made, backend, with_media
from tests.bus import until
from tests.fake_media import Studio
from tests.nodes import capability

NVENC, VAAPI = capability("h264_nvenc"), capability("h264_vaapi")
HERE = NODE
"""The one media worker that really works in these tests."""


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
    """Empty before it is planned."""
    with made.ledger.read() as session:
        found = replays.get(session, replay_id).plan
    return {rung.encoder for rung in Plan.model_validate(found).rungs} if found else set()


def happened(made: Made, name: str) -> list[dict[str, Any]]:
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


def silent(made: Made, name: str, seconds: float) -> None:
    """As if nothing had been heard of it for so long."""
    at = now() - timedelta(seconds=seconds)
    with made.ledger.write() as session:
        usable = {encoder: at.isoformat() for encoder in session.get_one(Node, name).usable_at}
        session.execute(update(Node).where(Node.name == name).values(heard_at=at, usable_at=usable))
