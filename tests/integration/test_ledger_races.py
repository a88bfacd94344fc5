"""Many threads want the same thing of the ledger at the same moment: one gets it, and nobody is turned away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control.bus import names
from control.errors import Conflict
from control.ledger import outbox, parts, replays, streams, views
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow, Stream
from control.settings import MediaSettings
from pipelines import replay as flow

Action = Callable[[Session], Any]


def at_once(ledger: Ledger, *actions: Action) -> list[Any]:
    """What each of `actions` gives, or raises, each in a transaction and a thread of its own."""
    start = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def run(number: int, action: Action) -> None:
        start.wait()
        try:
            with ledger.write() as session:
                results[number] = action(session)
        except Exception as error:  # noqa: BLE001  (what is raised is the result)
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def ended(ledger: Ledger, state: str = "waiting") -> str:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        replay = streams.end(session, "s", recording="a.mp4")
        if state != "waiting":
            assert replays.move(session, replay, ("waiting",), state)
        return replay.id


def facts(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        rows = session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
    return [row.payload["fact"] for row in rows if "fact" in row.payload]


def test_created_at_once_it_is_one_stream(ledger: Ledger) -> None:
    made = at_once(ledger, *[lambda s: streams.create(s, title="t", stream_id="s").id] * 6)
    assert made == ["s"] * 6
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Stream)) == 1


def test_ended_at_once_it_is_one_replay_and_one_fact(ledger: Ledger) -> None:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
    made = at_once(ledger, *[lambda s: streams.end(s, "s", recording="a.mp4").id] * 6)
    assert len(set(made)) == 1
    assert facts(ledger) == ["stream.ended"]


def test_ended_at_once_with_two_recordings_one_wins(ledger: Ledger) -> None:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
    made = at_once(
        ledger,
        lambda s: streams.end(s, "s", recording="a.mp4").source,
        lambda s: streams.end(s, "s", recording="b.mp4").source,
    )
    assert sum(isinstance(result, Conflict) for result in made) == 1
    (won,) = [result for result in made if not isinstance(result, Conflict)]
    with ledger.read() as session:
        assert streams.get(session, "s").recording == won


def test_one_of_many_moves_a_replay(ledger: Ledger) -> None:
    replay_id = ended(ledger)

    def move(session: Session) -> bool:
        return replays.move(session, replays.get(session, replay_id), ("waiting",), "probing")

    assert sorted(at_once(ledger, *[move] * 6)) == [False] * 5 + [True]


@pytest.mark.parametrize("round_", range(5))
def test_cancelled_and_completed_at_once_it_is_one_of_them(ledger: Ledger, round_: int) -> None:
    replay_id = ended(ledger, "transcoding")
    cancelled, completed = at_once(
        ledger,
        lambda s: streams.cancel(s, "s").state,
        lambda s: replays.move(s, replays.get(s, replay_id), ("transcoding",), "completed"),
    )
    with ledger.read() as session:
        shown = views.snapshot(session, "s").replay
        happened = [event.name for event in views.events_after(session, "s", 0)]
    assert shown
    if shown.state == "cancelled":
        assert (cancelled, completed) == ("cancelled", False)
    else:
        assert (shown.state, completed) == ("completed", True)
        assert isinstance(cancelled, Conflict)
    assert happened == ["stream.ended", f"replay.{shown.state}"]


def test_retried_at_once_it_is_one_run(ledger: Ledger) -> None:
    ended(ledger)
    with ledger.write() as session:
        streams.cancel(session, "s")
    runs = at_once(ledger, *[lambda s: streams.retry(s, "s").run] * 4)
    assert runs == [2] * 4
    assert facts(ledger) == ["stream.ended", "replay.cancelled", "replay.retried"]


def test_one_of_many_writes_playlists(ledger: Ledger) -> None:
    replay_id = ended(ledger, "transcoding")
    claims = at_once(ledger, *[lambda s: replays.claim_publishing(s, replays.get(s, replay_id))] * 6)
    assert sum(claim is not None for claim in claims) == 1


def test_the_answer_of_a_part_that_came_twice_counts_once(ledger: Ledger) -> None:
    replay_id = ended(ledger, "transcoding")
    with ledger.write() as session:
        parts.add(session, replay_id, "audio", 0).state = "sent"
    counts = at_once(ledger, *[lambda s: parts.mark_done(s, replay_id, "audio", {"made": 1})] * 4)
    assert sorted(counts) == [False] * 3 + [True]


def test_one_of_two_reconcilers_cleans_up(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    with ledger.write() as session:
        streams.cancel(session, "s")
    assert sorted(at_once(ledger, *[lambda s: replays.cleaned(s, replay_id, 1)] * 3)) == [False, False, True]


def test_no_writer_of_many_is_turned_away(ledger: Ledger) -> None:
    """SQLite says "database is locked" to a transaction that read first and wants to write later."""
    replay_id = ended(ledger, "transcoding")
    with ledger.write() as session:
        for number in range(40):
            parts.add(session, replay_id, "chunk", number, total_frames=30).state = "sent"

    def answer(number: int) -> Action:
        def act(session: Session) -> bool:
            replays.lock(session, replay_id)
            parts.progress(session, replay_id, 1, parts.name("chunk", number), 10, 30, 1.0)
            outbox.add(session, names.HANDLE_FACT, {"number": number})
            return parts.mark_done(session, replay_id, parts.name("chunk", number), {"made": number})

        return act

    looks: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            with ledger.read() as session:
                shown = views.snapshot(session, "s").replay
                assert shown
                facts = select(func.count()).where(OutboxRow.task == names.HANDLE_FACT.name)
                waiting = session.scalar(facts) or 0
                assert waiting - 1 == shown.chunks_done  # one moment: the first row is the stream's end
                looks.append(shown.chunks_done)

    reader = threading.Thread(target=look)
    reader.start()
    done = at_once(ledger, *[answer(number) for number in range(40)])
    stop.set()
    reader.join(10)
    assert done == [True] * 40
    assert looks
    assert looks == sorted(looks)
    with ledger.read() as session:
        assert parts.count(session, replay_id, "done") == 40
        assert outbox.depth(session) == 42  # the stream's end is an event as well


def test_a_part_s_end_and_what_follows_are_one_transaction(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    replay_id = ended(ledger, "transcoding")
    with ledger.write() as session:
        parts.add(session, replay_id, "audio", 0).state = "sent"

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(flow, "send_next", broken)
    with pytest.raises(ZeroDivisionError), ledger.write() as session:
        flow.part_done(session, replay_id, 1, "audio", {"made": 1}, MediaSettings(_env_file=None))
    with ledger.read() as session:
        assert parts.count(session, replay_id, "done") == 0
        assert outbox.depth(session) == 2  # the stream's end: a fact, and an event
