"""Streams and their replays: what may follow what, and what is told to whom in the same transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from control.bus import names
from control.bus.names import CATALOGUE
from control.errors import Conflict, NotFound
from control.ledger import commits, outbox, parts, replays, streams, views
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow, Part, Replay, Stream


def facts(ledger: Ledger) -> list[str]:
    """The facts that wait in the outbox, in order."""
    with ledger.read() as session:
        tasks = select(OutboxRow).where(OutboxRow.task.in_(CATALOGUE)).order_by(OutboxRow.id)
        rows = session.scalars(tasks).all()
    assert {row.task for row in rows} <= {names.HANDLE_FACT.name}
    return [row.payload["fact"] for row in rows]


def happened(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return [event.name for event in views.events_after(session, "s", 0)]


def ended(ledger: Ledger, recording: str = "a.mp4") -> str:
    """A stream `s` that ended; its replay's id."""
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
        return streams.end(session, "s", recording=recording).id


def bring(ledger: Ledger, state: str) -> None:
    with ledger.write() as session:
        replay = session.scalars(select(Replay)).one()
        assert replays.move(session, replay, replays.ACTIVE, state)


# --- create -----------------------------------------------------------------------------------------------------------


def test_a_client_may_choose_the_id_and_create_twice(ledger: Ledger) -> None:
    with ledger.write() as session:
        first = streams.create(session, title="t", seller_id="seller", stream_id="s", recording="a.mp4")
    with ledger.write() as session:
        again = streams.create(session, title="t", seller_id="seller", stream_id="s", recording="a.mp4")
        assert (again.id, again.created_at) == (first.id, first.created_at)
        assert len(session.scalars(select(Stream)).all()) == 1


@pytest.mark.parametrize(
    "other",
    [{"title": "another"}, {"seller_id": "another"}, {"recording": "another.mp4"}],
    ids=lambda other: next(iter(other)),
)
def test_the_same_id_with_other_content_is_a_conflict(ledger: Ledger, other: dict[str, Any]) -> None:
    content = {"title": "t", "seller_id": "seller", "recording": "a.mp4"}
    with ledger.write() as session:
        streams.create(session, stream_id="s", **content)
    with ledger.write() as session, pytest.raises(Conflict):
        streams.create(session, stream_id="s", **(content | other))


def test_an_id_is_made_where_none_was_chosen(ledger: Ledger) -> None:
    with ledger.write() as session:
        made = {streams.create(session, title="t").id for _ in range(3)}
    assert len(made) == 3


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_newest_first_without_gap_or_repetition(ledger: Ledger) -> None:
    with ledger.write() as session:
        at = now()
        for number in range(7):  # all of one instant: the id decides
            streams.create(session, title="t", stream_id=f"s{number}").created_at = at
    seen: list[str] = []
    after = None
    with ledger.read() as session:
        while page := streams.page(session, limit=3, after=after):
            seen += [stream.id for stream in page]
            after = seen[-1]
    assert seen == [f"s{number}" for number in range(6, -1, -1)]


def test_pages_by_state_of_stream_or_replay(ledger: Ledger) -> None:
    ended(ledger)
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="other")

    def ids(state: str) -> Sequence[str]:
        with ledger.read() as session:
            return [stream.id for stream in streams.page(session, limit=10, state=state)]

    assert ids("live") == ["other"]
    assert ids("ended") == ids("waiting") == ["s"]
    bring(ledger, "failed")
    assert (ids("failed"), ids("waiting")) == (["s"], [])


def test_a_page_after_nobody_is_not_found(ledger: Ledger) -> None:
    with ledger.read() as session, pytest.raises(NotFound):
        streams.page(session, limit=1, after="nobody")


# --- end --------------------------------------------------------------------------------------------------------------


def test_the_end_is_a_fact_and_a_message_in_one_transaction(ledger: Ledger) -> None:
    def spoilt() -> None:
        with ledger.write() as session:
            streams.create(session, title="t", stream_id="s")
            streams.end(session, "s", recording="a.mp4")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spoilt()
    assert facts(ledger) == []
    replay_id = ended(ledger)
    assert facts(ledger) == ["stream.ended"]
    assert happened(ledger) == ["stream.ended"]
    with ledger.read() as session:
        payload = session.scalars(select(OutboxRow).where(OutboxRow.task.in_(CATALOGUE))).one().payload
        assert payload["facts"] == {"replay_id": replay_id, "run": 1, "prefix": f"replays/{replay_id}/"}


def test_ending_twice_is_the_same_replay_and_tells_nobody_again(ledger: Ledger) -> None:
    first = ended(ledger)
    for recording in ("a.mp4", None):
        with ledger.write() as session:
            assert streams.end(session, "s", recording=recording).id == first
    assert facts(ledger) == ["stream.ended"]
    with ledger.write() as session, pytest.raises(Conflict, match="another recording"):
        streams.end(session, "s", recording="b.mp4")


def test_the_recording_may_be_named_at_creation(ledger: Ledger) -> None:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s", recording="known.mp4")
        assert streams.end(session, "s", recording=None).source == "known.mp4"


def test_without_a_recording_there_is_no_end(ledger: Ledger) -> None:
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
    with ledger.write() as session, pytest.raises(Conflict, match="no recording"):
        streams.end(session, "s", recording=None)
    with ledger.read() as session:
        assert streams.get(session, "s").state == "live"


@pytest.mark.parametrize("action", [streams.cancel, streams.retry])
def test_nothing_can_be_done_to_a_replay_that_is_not_there(ledger: Ledger, action: Callable[..., Any]) -> None:
    with ledger.write() as session, pytest.raises(NotFound):
        action(session, "nobody")
    with ledger.write() as session:
        streams.create(session, title="t", stream_id="s")
    with ledger.write() as session, pytest.raises(Conflict, match="not ended yet"):
        action(session, "s")


# --- cancel and retry -------------------------------------------------------------------------------------------------


def test_cancel_holds_at_once_and_takes_the_parts_off_the_bus(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    with ledger.write() as session:
        for number, state in enumerate(("pending", "sent", "done")):
            parts.add(session, replay_id, "chunk", number).state = state
    with ledger.write() as session:
        assert streams.cancel(session, "s").state == "cancelled"
    with ledger.write() as session:
        streams.cancel(session, "s")  # again is the same as once
        assert [part.state for part in parts.of_replay(session, replay_id)] == ["cancelled", "cancelled", "done"]
    assert facts(ledger) == ["stream.ended", "replay.cancelled"]
    assert happened(ledger) == ["stream.ended", "replay.cancelled"]


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_what_is_over_cannot_be_cancelled(ledger: Ledger, state: str) -> None:
    ended(ledger)
    bring(ledger, state)
    with ledger.write() as session, pytest.raises(Conflict, match=state):
        streams.cancel(session, "s")


def test_a_completed_replay_is_not_made_again(ledger: Ledger) -> None:
    ended(ledger)
    bring(ledger, "completed")
    with ledger.write() as session, pytest.raises(Conflict, match="completed"):
        streams.retry(session, "s")


def test_retry_of_what_goes_on_changes_nothing(ledger: Ledger) -> None:
    ended(ledger)
    with ledger.write() as session:
        assert streams.retry(session, "s").run == 1
    assert facts(ledger) == ["stream.ended"]


def test_retry_of_a_failed_one_keeps_place_and_finished_parts(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    with ledger.write() as session:
        for number, state in enumerate(("done", "failed", "cancelled")):
            parts.add(session, replay_id, "chunk", number).state = state
        replay = replays.get(session, replay_id)
        replays.move(session, replay, replays.ACTIVE, "failed", problem_code="x", problem_detail="y", plan={"p": 1})
    with ledger.write() as session:
        replay = streams.retry(session, "s")
        assert (replay.state, replay.run, replay.prefix) == ("waiting", 2, f"replays/{replay_id}/")
        assert (replay.problem_code, replay.problem_detail, replay.finished_at) == (None, None, None)
        assert replay.plan == {"p": 1}
        assert [part.state for part in parts.of_replay(session, replay_id)] == ["done", "pending", "pending"]
    assert facts(ledger) == ["stream.ended", "replay.retried"]


def test_retry_of_a_cancelled_one_starts_from_nothing_elsewhere(ledger: Ledger) -> None:
    """The files of the cancelled run are being removed while the new one begins."""
    replay_id = ended(ledger)
    with ledger.write() as session:
        parts.add(session, replay_id, "chunk", 0).state = "done"
        replays.touch(session, replay_id, plan={"p": 1}, info={"i": 1}, inits={"a": "b"}, frames_total=9)
    with ledger.write() as session:
        streams.cancel(session, "s")
    with ledger.write() as session:
        replay = streams.retry(session, "s")
        assert replay.prefix == f"replays/{replay_id}.2/"
        assert (replay.plan, replay.info, replay.inits, replay.frames_total) == (None, None, None, 0)
        assert session.scalars(select(Part)).all() == []


# --- compare and set --------------------------------------------------------------------------------------------------


def test_a_replay_moves_only_from_where_it_is_said_to_be(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    with ledger.write() as session:
        replay = replays.get(session, replay_id)
        assert not replays.move(session, replay, ("transcoding",), "completed")
        assert replays.move(session, replay, ("waiting",), "probing")
        assert replay.state == "probing"
        assert not replays.move(session, replay, ("waiting",), "probing")
    with ledger.write() as session:
        stale = replays.get(session, replay_id)
        stale.run = 7
        session.expunge(stale)
        assert not replays.move(session, stale, ("probing",), "failed")  # another run's
    assert happened(ledger) == ["stream.ended"]


def test_each_change_is_a_new_version(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    seen = []
    for change in (
        lambda session: streams.get(session, "s"),
        lambda session: replays.touch(session, replay_id, frames_total=10),
        lambda session: replays.move(session, replays.get(session, replay_id), ("waiting",), "probing"),
        lambda session: parts.mark_sent(session, parts.add(session, replay_id, "audio", 0)),
        lambda session: streams.cancel(session, "s"),
        lambda session: streams.retry(session, "s"),
    ):
        with ledger.write() as session:
            change(session)
        with ledger.read() as session:
            seen.append(views.snapshot(session, "s").version)
    assert len(set(seen)) == len(seen)


def test_one_writes_playlists_at_a_time(ledger: Ledger) -> None:
    replay_id = ended(ledger)
    with ledger.write() as session:
        replay = replays.get(session, replay_id)
        mine = replays.claim_publishing(session, replay)
        assert mine is not None
        assert replays.claim_publishing(session, replay) is None
    with ledger.write() as session:
        # The one who had it did not renew it in time; it may not give back, or keep, what is another's by now.
        late = now() - timedelta(seconds=replays.PUBLISHING_LEASE_SECONDS + 1)
        replays.touch(session, replay_id, publishing_since=late)
        theirs = replays.claim_publishing(session, replays.get(session, replay_id))
        assert theirs is not None
        assert replays.renew_publishing(session, replay_id, late) is None
        assert not replays.release_publishing(session, replay_id, late)
        assert replays.release_publishing(session, replay_id, theirs)
        assert replays.claim_publishing(session, replays.get(session, replay_id)) is not None


# --- outbox -----------------------------------------------------------------------------------------------------------


def test_what_is_urgent_does_not_wait_behind_what_is_not(ledger: Ledger) -> None:
    with ledger.write() as session:
        for number in range(300):
            outbox.add(session, names.HANDLE_FACT, {"number": number})
        outbox.add(session, names.SEND_OTP_SMS, {"otp_id": "first"})
        outbox.add(session, names.PROCESS_ORDER, {"order_id": "second"})
    with ledger.write() as session:
        due = [row.payload for row in outbox.due(session, 4)]
    assert due == [{"otp_id": "first"}, {"order_id": "second"}, {"number": 0}, {"number": 1}]


def test_the_outbox_is_in_order_and_waits_for_its_time(ledger: Ledger) -> None:
    with ledger.write() as session:
        for number in range(3):
            outbox.add(session, names.HANDLE_FACT, {"number": number}, delay_seconds=3600 if number == 1 else 0)
    with ledger.write() as session:
        due = outbox.due(session, 10)
        assert [row.payload["number"] for row in due] == [0, 2]
        assert [row.payload["number"] for row in outbox.due(session, 1)] == [0]
        outbox.sent(session, [due[0].id])
        outbox.postpone(session, [due[1].id], 60)
        assert outbox.due(session, 10) == []
        assert outbox.depth(session) == 2


def test_an_id_of_the_outbox_never_comes_again(ledger: Ledger) -> None:
    ids = []
    for _ in range(3):
        with ledger.write() as session:
            outbox.add(session, names.HANDLE_FACT, {})
        with ledger.write() as session:
            (row,) = outbox.due(session, 10)
            ids.append(row.id)
            outbox.sent(session, [row.id])
    assert len(set(ids)) == 3


def test_only_what_is_in_the_catalogue_can_be_sent(ledger: Ledger) -> None:
    with ledger.write() as session, pytest.raises(ValueError, match="not in the catalogue"):
        outbox.add(session, dataclasses.replace(names.HANDLE_FACT, name="pipelines.typo"), {})


def test_listeners_hear_of_commits_with_news_alone(ledger: Ledger) -> None:
    heard: list[int] = []

    def spoilt() -> None:
        with ledger.write() as session:
            outbox.add(session, names.HANDLE_FACT, {})
            raise ZeroDivisionError

    forget = commits.on_news(lambda: heard.append(1))
    try:
        with ledger.write() as session:
            outbox.add(session, names.HANDLE_FACT, {})
            assert heard == []
        assert heard == [1]
        with ledger.write() as session:
            streams.create(session, title="t")
        with pytest.raises(ZeroDivisionError):
            spoilt()
        assert heard == [1]
    finally:
        forget()
    with ledger.write() as session:
        outbox.add(session, names.HANDLE_FACT, {})
    assert heard == [1]
