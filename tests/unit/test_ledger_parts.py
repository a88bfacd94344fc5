"""Parts: their transitions, their progress, and what a person is shown of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from control.ledger import backlog, parts, replays, streams, views
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.views import ReplayView


@pytest.fixture
def replay_id(ledger: Ledger) -> str:
    """A replay of 4 chunks of 300 frames at 30 fps, one audio rendition and pictures, being transcoded."""
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        replay = streams.end(session, "s", recording="a.mp4")
        for number in range(4):
            parts.add(session, replay.id, "chunk", number, total_frames=300)
        parts.add(session, replay.id, "audio", 0)
        parts.add(session, replay.id, "pictures", 0)
        changes: dict[str, Any] = {"frames_total": 1200, "plan": {"frame_rate": "30"}, "planned_at": now()}
        assert replays.move(session, replay, ("waiting",), "transcoding", **changes)
        return replay.id


def send(ledger: Ledger, replay_id: str, *chunks: int) -> None:
    with ledger.write() as session:
        for part in parts.of_replay(session, replay_id, kind="chunk"):
            if part.number in chunks:
                assert parts.mark_sent(session, part)


def report(ledger: Ledger, replay_id: str, part: str, done: int, *, run: int = 1, fps: float = 60.0) -> None:
    with ledger.write() as session:
        parts.progress(session, replay_id, run, part, done, 300, fps)


def view(ledger: Ledger) -> ReplayView:
    with ledger.read() as session:
        found = views.snapshot(session, "s").replay
    assert found
    return found


def test_names() -> None:
    assert parts.name("chunk", 3) == "chunk-00003"
    assert [parts.name("audio", number) for number in range(2)] == ["audio", "audio-2"]
    assert [parts.name(kind, 0) for kind in ("recording", "pictures")] == ["recording", "pictures"]


@pytest.mark.parametrize(
    ("state", "sent", "done"),
    [
        ("pending", True, True),  # an answer may come before the ledger knows that it was sent
        ("sent", True, True),
        ("done", False, False),
        ("failed", False, True),
        ("cancelled", False, False),
    ],
)
def test_transitions(ledger: Ledger, replay_id: str, state: str, sent: bool, done: bool) -> None:
    with ledger.write() as session:
        part = parts.of_replay(session, replay_id, kind="chunk")[0]
        part.state = state
        session.flush()
        assert parts.mark_sent(session, part) is sent
    with ledger.write() as session:
        part = parts.of_replay(session, replay_id, kind="chunk")[0]
        part.state = state
        session.flush()
        assert parts.mark_done(session, replay_id, part.name, {"made": 1}) is done
        session.refresh(part)
        assert part.result == ({"made": 1} if done else None)


def test_the_first_answer_counts(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, 0)
    with ledger.write() as session:
        assert parts.mark_done(session, replay_id, "chunk-00000", {"made": 1})
        assert not parts.mark_done(session, replay_id, "chunk-00000", {"made": 2})
    with ledger.read() as session:
        part = parts.of_replay(session, replay_id, kind="chunk")[0]
        assert (part.result, part.done_frames) == ({"made": 1}, 300)


def test_progress_never_counts_backwards_nor_for_another_run_nor_when_done(ledger: Ledger, replay_id: str) -> None:
    report(ledger, replay_id, "chunk-00000", 100)  # not sent
    assert view(ledger).frames_done == 0
    send(ledger, replay_id, 0)
    report(ledger, replay_id, "chunk-00000", 200)
    report(ledger, replay_id, "chunk-00000", 100)
    assert view(ledger).frames_done == 200
    report(ledger, replay_id, "chunk-00000", 290, run=2)
    report(ledger, replay_id, "chunk-00009", 290)
    assert view(ledger).frames_done == 200
    report(ledger, replay_id, "chunk-00000", 900)
    assert view(ledger).frames_done == 300
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00000", {})
    report(ledger, replay_id, "chunk-00000", 10)
    assert (view(ledger).frames_done, view(ledger).fps) == (300, 0)


def test_sent_again_it_starts_from_nothing(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, 0)
    report(ledger, replay_id, "chunk-00000", 200)
    send(ledger, replay_id, 0)
    assert (view(ledger).frames_done, view(ledger).fps) == (0, 0)


def test_what_is_shown_while_it_is_made(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, 0, 1, 2)
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00000", {})
    report(ledger, replay_id, "chunk-00001", 150, fps=40.0)
    report(ledger, replay_id, "chunk-00002", 150, fps=50.0)
    shown = view(ledger)
    assert (shown.frames_done, shown.frames_total) == (600, 1200)
    assert (shown.chunks_done, shown.chunks_total) == (1, 4)
    assert (shown.fps, shown.speed) == (90.0, 3.0)
    assert shown.eta_seconds == pytest.approx(600 / 90, abs=0.05)
    assert shown.progress == pytest.approx(0.49, abs=0.001)
    assert not shown.playable


def test_between_reports_the_average_says_how_long_it_takes(ledger: Ledger, replay_id: str) -> None:
    assert view(ledger).eta_seconds is None
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00000", {})
        replays.touch(session, replay_id, planned_at=now() - timedelta(seconds=10))
    assert view(ledger).eta_seconds == pytest.approx(900 / 30, rel=0.05)


def test_it_is_whole_only_when_it_is_completed(ledger: Ledger, replay_id: str) -> None:
    with ledger.write() as session:
        for part in parts.of_replay(session, replay_id):
            parts.mark_done(session, replay_id, part.name, {})
    assert 0.99 < view(ledger).progress < 1
    with ledger.write() as session:
        assert replays.move(session, replays.get(session, replay_id), ("transcoding",), "completed")
    assert (view(ledger).progress, view(ledger).eta_seconds) == (1.0, None)
    assert view(ledger).finished_at is not None


def test_chunks_done_in_a_row(ledger: Ledger, replay_id: str) -> None:
    expected = {1: 0, 0: 2, 3: 2, 2: 4}
    for chunk, in_a_row in expected.items():
        with ledger.write() as session:
            parts.mark_done(session, replay_id, parts.name("chunk", chunk), {})
            assert parts.done_in_a_row(session, replay_id) == in_a_row


def test_the_silent_ones_are_those_on_the_bus_alone(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, 0, 1, 2)
    sent_at = now()
    report(ledger, replay_id, "chunk-00001", 10)
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00002", {})
        assert [part.name for part in parts.silent_since(session, replay_id, sent_at)] == ["chunk-00000"]
        assert parts.silent_since(session, replay_id, sent_at - timedelta(minutes=1)) == []


def test_events_come_after_the_one_that_was_seen(ledger: Ledger, replay_id: str) -> None:
    with ledger.write() as session:
        streams.cancel(session, "s")
    with ledger.read() as session:
        every = views.events_after(session, "s", 0)
        assert [event.name for event in every] == ["stream.ended", "replay.cancelled"]
        assert [event.name for event in views.events_after(session, "s", every[0].id)] == ["replay.cancelled"]
        assert every[1].data["replay_id"] == replay_id


# --- what is still to be done, as metrics -----------------------------------------------------------------------------


def gauge(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(f"afterlive_{name}", labels)
    assert found is not None
    return found


def chunks_now() -> list[float]:
    return [gauge("parts", kind="chunk", state=state) for state in ("pending", "waiting", "running")]


def test_what_is_to_be_done_is_told_by_kind_and_state(ledger: Ledger, replay_id: str) -> None:
    send(ledger, replay_id, 0, 1)
    backlog.look(ledger)
    assert chunks_now() == [2, 2, 0]
    assert gauge("parts", kind="audio", state="pending") == 1
    report(ledger, replay_id, "chunk-00000", 100)
    with ledger.write() as session:
        parts.mark_done(session, replay_id, "chunk-00001", {})
    backlog.look(ledger)
    assert chunks_now() == [2, 0, 1]
    assert gauge("backlog_frames") == 200 + 2 * 300


def test_how_long_the_part_waits_that_nobody_takes(ledger: Ledger, replay_id: str) -> None:
    """Time passes for it whether there are workers or not; for one that has begun it does not."""
    send(ledger, replay_id, 0, 1)
    with ledger.write() as session:
        for part, minutes in zip(parts.of_replay(session, replay_id, kind="chunk"), (10, 5, 0, 0), strict=True):
            if part.sent_at:
                part.sent_at = part.heartbeat_at = part.sent_at - timedelta(minutes=minutes)
    backlog.look(ledger)
    assert gauge("parts_waiting_seconds", kind="chunk") == pytest.approx(600, abs=60)
    assert gauge("parts_waiting_seconds", kind="audio") == 0
    report(ledger, replay_id, "chunk-00000", 1)
    backlog.look(ledger)
    assert gauge("parts_waiting_seconds", kind="chunk") == pytest.approx(300, abs=60)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_replay_that_is_over_has_nothing_to_be_done(ledger: Ledger, replay_id: str, state: str) -> None:
    send(ledger, replay_id, 0)
    with ledger.write() as session:
        assert replays.move(session, replays.get(session, replay_id), ("transcoding",), state)
    backlog.look(ledger)
    assert chunks_now() == [0, 0, 0]
    assert gauge("backlog_frames") == 0
    assert gauge("parts_waiting_seconds", kind="chunk") == 0
