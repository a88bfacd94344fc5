"""What a look at a stream costs, and what it says of a replay in each state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from control.errors import NotFound
from control.ledger import parts, replays, streams, views
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.views import ReplayView

_WHOLE = re.compile(r"(?:SELECT |, )replays\.(?:info|plan)\b")


@contextmanager
def statements(ledger: Ledger) -> Iterator[list[str]]:
    """The SQL that is run in the block."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(ledger._engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(ledger._engine, "before_cursor_execute", note)


def whole_facts(seen: list[str]) -> list[str]:
    """Those that read all of a replay's facts, or all of its plan."""
    return [statement for statement in seen if _WHOLE.search(statement.replace('"', ""))]


@pytest.fixture
def replay_id(ledger: Ledger) -> str:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s", seller_id="seller")
        replay = streams.end(session, "s", recording="a.mp4")
        facts = {"info": {"video": {"keyframes": list(range(1000))}}, "plan": {"frame_rate": "30000/1001"}}
        for number in range(2):
            parts.add(session, replay.id, "chunk", number, total_frames=300)
        assert replays.move(session, replay, ("waiting",), "transcoding", frames_total=600, planned_at=now(), **facts)
        return replay.id


def view(ledger: Ledger) -> ReplayView:
    with ledger.read() as session:
        found = views.snapshot(session, "s").replay
    assert found
    return found


def send(ledger: Ledger, replay_id: str, *, fps: float) -> None:
    with ledger.write() as session:
        for part in parts.of_replay(session, replay_id, kind="chunk"):
            assert parts.mark_sent(session, part)
            parts.progress(session, replay_id, 1, part.name, 30, 300, fps)


def test_a_look_reads_no_keyframes_and_no_chunks(ledger: Ledger, replay_id: str) -> None:
    """A player page looks each second; the facts of five hours of recording are not for it."""
    send(ledger, replay_id, fps=20)
    with statements(ledger) as seen:
        assert view(ledger).speed > 0
    assert any("replays.state" in statement for statement in seen)
    assert not whole_facts(seen)
    assert len(seen) <= 5  # of which BEGIN is one


def test_progress_of_a_part_reads_no_keyframes(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, fps=20)
    with statements(ledger) as seen, ledger.write() as session:
        parts.progress(session, replay_id, 1, "chunk-00000", 60, 300, 20)
    assert any("UPDATE parts" in statement for statement in seen)
    assert not whole_facts(seen)


def test_the_facts_are_there_for_who_asks(ledger: Ledger, replay_id: str) -> None:
    with statements(ledger) as seen, ledger.read() as session:
        replay = replays.get(session, replay_id)
        assert replay.info == {"video": {"keyframes": list(range(1000))}}
        assert replay.plan == {"frame_rate": "30000/1001"}
    assert len(whole_facts(seen)) == 2


def test_speed_is_seconds_of_recording_a_second(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, fps=29.97)
    shown = view(ledger)
    assert (shown.fps, shown.speed) == (59.9, 2.0)


def test_what_is_left_falls_as_frames_are_made(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, fps=20)
    left = []
    for done in (60, 120, 200, 300):
        for part in ("chunk-00000", "chunk-00001"):
            with ledger.write() as session:
                parts.progress(session, replay_id, 1, part, done, 300, 20)
        left.append(view(ledger).eta_seconds)
    assert left == pytest.approx([480 / 40, 360 / 40, 200 / 40, 0], abs=0.05)


@pytest.mark.parametrize(
    ("state", "eta", "progress"),
    [("transcoding", True, 0.5), ("failed", False, 0.5), ("cancelled", False, 0.5), ("completed", False, 1.0)],
)
def test_states(ledger: Ledger, replay_id: str, state: str, eta: bool, progress: float) -> None:
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00000", {})
        replays.touch(session, replay_id, planned_at=now() - timedelta(seconds=10))
        replay = replays.get(session, replay_id)
        problem = {"problem_code": "encoder-failed", "problem_detail": "d"} if state == "failed" else {}
        if state != "transcoding":
            assert replays.move(session, replay, replays.ACTIVE, state, **problem)
    shown = view(ledger)
    assert (shown.state, shown.eta_seconds is not None) == (state, eta)
    assert shown.progress == pytest.approx(progress, abs=0.02)
    assert (shown.problem is not None) == (state == "failed")
    assert (shown.finished_at is not None) == (state != "transcoding")


def test_a_live_stream_has_no_replay(ledger: Ledger) -> None:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
    with ledger.read() as session:
        shown = views.snapshot(session, "s")
    assert (shown.state, shown.replay, shown.ended_at) == ("live", None, None)


def test_nobody_is_not_found(ledger: Ledger) -> None:
    with ledger.read() as session, pytest.raises(NotFound, match="nobody"):
        views.snapshot(session, "nobody")
