"""Failed tasks: noted once each, done again or put aside once each, and told of without a flood."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.failure import Reason
from control.errors import Conflict, NotFound
from control.ledger import failures, many, outbox, parts, replays, streams, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Part, Replay
from control.ledger.task_models import FailedTask, TaskRow
from control.ledger.task_views import FailedReason
from tests.bus import catalogued, spec_of
from tests.failed import failed, failure, part, waiting


def act(ledger: Ledger, what: Callable[..., FailedTask], failed_id: str, *more: Any) -> FailedTask:
    with ledger.write() as session:
        return what(session, failed_id, *(more or ("ann",)))


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` gives, or raises, in so many threads at the same moment."""
    start = threading.Barrier(number)
    found: list[Any] = [None] * number

    def run(index: int) -> None:
        start.wait()
        try:
            found[index] = work(index)
        except Exception as error:  # noqa: BLE001  (what is raised is the result)
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def audit(ledger: Ledger, failed_id: str) -> list[tuple[str, str]]:
    with ledger.read() as session:
        return [(action.action, action.actor) for action in failures.actions(session, failed_id)]


def task_state(ledger: Ledger, task_id: str) -> str:
    with ledger.read() as session:
        return session.get_one(TaskRow, task_id).state


def open_count(ledger: Ledger) -> int:
    with ledger.read() as session:
        return many.count(session)


# --- noted ------------------------------------------------------------------------------------------------------------


def test_one_that_comes_twice_is_noted_once(ledger: Ledger) -> None:
    row = failed(ledger)
    with ledger.write() as session:
        assert not failures.note(session, failure(row.task_id, origin=row.origin))
    assert open_count(ledger) == 1
    assert task_state(ledger, row.task_id) == "FAILURE"


def test_noted_by_many_at_once_it_is_one(ledger: Ledger) -> None:
    def note(_: int) -> bool:
        with ledger.write() as session:
            return failures.note(session, failure("t-1", origin="the same"))

    assert sorted(at_once(6, note)) == [False] * 5 + [True]
    assert open_count(ledger) == 1


def test_whatever_a_failure_says_it_is_noted(ledger: Ledger) -> None:
    """The one message the database will not take would come back for ever, and keep all others waiting."""
    long: dict[str, Any] = dict.fromkeys(("origin", "task", "queue", "key", "code", "exception"), "x" * 500)
    row = failure("t" * 500, payload={"weight": float("nan")}, detail="a\0b \ud800", traceback="\0" * 9, **long)
    with ledger.write() as session:
        assert failures.note(session, row)
    with ledger.read() as session:
        kept = failures.get(session, row.id)
        assert (len(kept.task_id), len(kept.code), len(kept.exception or "")) == (64, 64, 160)
        assert kept.detail == "a\N{REPLACEMENT CHARACTER}b ?"
        assert kept.payload is None


def test_the_reasons_are_those_of_the_bus() -> None:
    assert get_args(FailedReason) == get_args(Reason)


# --- replayed ---------------------------------------------------------------------------------------------------------


def test_replayed_it_is_sent_once_under_its_own_id(ledger: Ledger) -> None:
    row = failed(ledger)
    for actor in ("ann", "ben"):
        assert act(ledger, failures.replay, row.id, actor).state == "replayed"
    (message,) = waiting(ledger)
    assert (message.task_id, message.payload) == (row.task_id, row.payload)
    assert audit(ledger, row.id) == [("replayed", "ann")]
    assert task_state(ledger, row.task_id) == "PENDING"


@pytest.mark.parametrize("round_", range(3))
def test_replayed_by_many_at_once_it_is_sent_once(ledger: Ledger, round_: int) -> None:
    row = failed(ledger)
    found = at_once(6, lambda number: act(ledger, failures.replay, row.id, f"user-{number}").state)
    assert found == ["replayed"] * 6
    assert len(waiting(ledger)) == 1
    assert len(audit(ledger, row.id)) == 1


def test_all_replayed_by_two_at_once_each_is_sent_once(ledger: Ledger) -> None:
    rows = [failed(ledger) for _ in range(30)]

    def all_of_them(number: int) -> many.Outcome:
        with ledger.read() as session:
            ids = many.chosen(session)
        return many.each(ledger, ids, lambda session, one: failures.replay(session, one, f"user-{number}"))

    assert [outcome.refused for outcome in at_once(2, all_of_them)] == [[], []]
    assert sorted(str(message.task_id) for message in waiting(ledger)) == sorted(row.task_id for row in rows)


@pytest.mark.parametrize("round_", range(3))
def test_replayed_and_discarded_at_once_it_is_one_of_them_and_the_other_is_told(ledger: Ledger, round_: int) -> None:
    row = failed(ledger)
    acts = (failures.replay, failures.discard)
    found = at_once(2, lambda number: act(ledger, acts[number], row.id).state)
    (won,) = [result for result in found if not isinstance(result, Conflict)]
    assert sum(isinstance(result, Conflict) for result in found) == 1
    assert [action for action, _ in audit(ledger, row.id)] == [won]
    assert len(waiting(ledger)) == (1 if won == "replayed" else 0)


@pytest.mark.parametrize("second", ["replay", "discard"])
@pytest.mark.parametrize("first", ["replay", "discard"])
def test_who_looked_before_the_other_was_done_learns_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """The second has seen it open, and waits for the first, who has not committed yet."""
    row, looked = failed(ledger), threading.Event()
    look = failures.get

    def seen(session: Session, failed_id: str) -> FailedTask:
        found = look(session, failed_id)
        if threading.current_thread() is not threading.main_thread():
            looked.set()
        return found

    monkeypatch.setattr(failures, "get", seen)
    result: list[Any] = []

    def other() -> None:
        try:
            result.append(act(ledger, getattr(failures, second), row.id, "ben").state)
        except Conflict as error:
            result.append(error)

    thread = threading.Thread(target=other)
    with ledger.write() as session:
        getattr(failures, first)(session, row.id, "ann")
        session.flush()
        thread.start()
        looked.wait(10 if ledger.is_shared else 0.3)  # SQLite does not even let it look
    thread.join(30)
    done = f"{first}ed" if first == "replay" else "discarded"
    assert audit(ledger, row.id) == [(done, "ann")]
    assert len(waiting(ledger)) == (1 if first == "replay" else 0)
    if first == second:
        assert result == [done]
    else:
        assert isinstance(result[0], Conflict)
        assert done in str(result[0])


def test_one_that_fails_again_is_another_and_may_be_replayed_again(ledger: Ledger) -> None:
    row = failed(ledger)
    act(ledger, failures.replay, row.id)
    again = failure(row.task_id)
    with ledger.write() as session:
        assert failures.note(session, again)
    assert task_state(ledger, row.task_id) == "FAILURE"
    assert act(ledger, failures.replay, again.id).state == "replayed"
    assert [message.task_id for message in waiting(ledger)] == [row.task_id] * 2
    with ledger.read() as session:
        assert failures.last_of(session, [row.task_id])[row.task_id].id == again.id


def test_what_has_no_id_of_its_own_gets_one(ledger: Ledger) -> None:
    """Else all of them would be the same task, and all but one a duplicate."""
    rows = [failure("unknown") for _ in range(2)]
    with ledger.write() as session:
        for row in rows:
            assert failures.note(session, row)
    sent = [act(ledger, failures.replay, row.id).replayed_as for row in rows]
    assert len({*sent, "unknown"}) == 3
    assert [message.task_id for message in waiting(ledger)] == sent


def test_what_cannot_be_done_again_is_refused_and_stays_open(ledger: Ledger) -> None:
    secretive = spec_of("tests.otp", secret=frozenset({"code"}))
    with catalogued(secretive):
        hidden = failed(ledger, secretive, {"code": failures.HIDDEN})
        unread = failure("t-1", payload={})
        unread.payload = None
        foreign = failure("t-2", task="somebody.elses")
        with ledger.write() as session:
            for row in (unread, foreign):
                assert failures.note(session, row)
        for row, words in ((hidden, "secret arguments"), (unread, "cannot be read"), (foreign, "cannot be read")):
            with pytest.raises(Conflict, match=words):
                act(ledger, failures.replay, row.id)
            assert audit(ledger, row.id) == []
    assert open_count(ledger) == 3
    with pytest.raises(NotFound):
        act(ledger, failures.replay, "fail_none")


def test_discarded_it_is_not_replayed_and_the_other_way_round(ledger: Ledger) -> None:
    one, other = failed(ledger), failed(ledger)
    for _ in range(2):
        assert act(ledger, failures.discard, one.id, "ann", "of no use").state == "discarded"
    assert task_state(ledger, one.task_id) == "DISCARDED"
    assert audit(ledger, one.id) == [("discarded", "ann")]
    act(ledger, failures.replay, other.id)
    with pytest.raises(Conflict, match="was discarded"):
        act(ledger, failures.replay, one.id)
    with pytest.raises(Conflict, match="was replayed"):
        act(ledger, failures.discard, other.id)


def test_one_of_two_failures_discarded_the_replay_of_the_other_goes_on(ledger: Ledger) -> None:
    """A message that was delivered twice may fail twice."""
    row = failed(ledger)
    twin = failure(row.task_id)
    with ledger.write() as session:
        assert failures.note(session, twin)
    act(ledger, failures.replay, row.id)
    act(ledger, failures.discard, twin.id)
    assert task_state(ledger, row.task_id) == "PENDING"


# --- parts of replays -------------------------------------------------------------------------------------------------


def test_a_part_of_a_failed_replay_has_all_of_it_made_again(ledger: Ledger) -> None:
    row = part(ledger, "s", "chunk", state="failed", of_replay="failed")
    second = failure("t-2", names.TRANSCODE_CHUNK, row.payload)
    with ledger.write() as session:
        assert failures.note(session, second)
    for one in (row, second):
        shown = act(ledger, failures.replay, one.id)
        assert (shown.state, shown.replayed_as) == ("replayed", None)
    with ledger.read() as session:
        assert (replays.get(session, str(row.key)).state, replays.get(session, str(row.key)).run) == ("waiting", 2)
    assert [message.payload["fact"] for message in waiting(ledger) if message.payload["fact"] == "replay.retried"] == [
        "replay.retried"
    ]
    assert waiting(ledger, names.TRANSCODE_CHUNK) == []


def test_parts_of_one_replay_replayed_at_once_are_one_retry(ledger: Ledger) -> None:
    row = part(ledger, "s", "chunk", state="failed", of_replay="failed")
    rows = [row, *(failure(f"t-{number}", names.TRANSCODE_CHUNK, row.payload) for number in range(3))]
    with ledger.write() as session:
        for other in rows[1:]:
            assert failures.note(session, other)
    found = at_once(4, lambda number: act(ledger, failures.replay, rows[number].id).state)
    assert found == ["replayed"] * 4
    with ledger.read() as session:
        assert replays.get(session, str(row.key)).run == 2


def test_pictures_a_replay_goes_on_without_are_made_after_all(ledger: Ledger) -> None:
    row = part(ledger, "s", "pictures", state="failed")
    shown = act(ledger, failures.replay, row.id)
    assert shown.replayed_as == row.task_id
    (message,) = waiting(ledger, names.GENERATE_STREAM_THUMBNAIL)
    assert (message.task_id, message.payload) == (row.task_id, row.payload)
    with ledger.read() as session:
        assert session.get_one(Part, (row.key, "pictures")).state == "sent"
        assert replays.get(session, str(row.key)).run == 1


@pytest.mark.parametrize(
    ("state", "of_replay", "words"),
    [
        ("done", "transcoding", "was made since"),
        ("sent", "transcoding", "is being made"),
        ("cancelled", "cancelled", "was cancelled"),
        ("failed", "completed", "is completed"),
    ],
)
def test_a_part_that_is_not_to_be_made_is_refused(ledger: Ledger, state: str, of_replay: str, words: str) -> None:
    row = part(ledger, "s", "pictures", state=state, of_replay=of_replay)
    with ledger.write() as session, pytest.raises(Conflict, match=words):  # raised inside: it is committed
        failures.replay(session, row.id, "ann")
    # Although that transaction was committed.
    assert open_count(ledger) == 1
    assert audit(ledger, row.id) == []
    with ledger.read() as session:
        assert session.get_one(Part, (row.key, "pictures")).state == state
        assert session.get_one(Replay, row.key).state == of_replay


def test_a_part_of_a_run_that_is_over_is_made_by_the_next(ledger: Ledger) -> None:
    row = part(ledger, "s", "chunk", state="failed", of_replay="failed")
    with ledger.write() as session:
        streams.retry(session, "s")
    assert act(ledger, failures.replay, row.id).replayed_as is None
    with ledger.read() as session:
        assert replays.get(session, str(row.key)).run == 2
        assert parts.count(session, str(row.key), "pending") == 1


# --- many -------------------------------------------------------------------------------------------------------------


def test_one_that_is_refused_keeps_no_other_back(ledger: Ledger) -> None:
    rows = [failed(ledger), part(ledger, "s", "pictures", state="done"), failed(ledger)]
    with ledger.read() as session:
        ids = many.chosen(session)
    outcome = many.each(ledger, [*ids, "fail_none"], lambda session, one: failures.replay(session, one, "ann"))
    assert set(ids) == {row.id for row in rows}
    assert set(outcome.done) == {rows[0].id, rows[2].id}
    assert [(one.id, one.code) for one in outcome.refused] == [(rows[1].id, "conflict"), ("fail_none", "not-found")]
    assert len(waiting(ledger)) >= 2


def test_the_oldest_are_chosen_first_and_pages_go_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(failures, "new_id", lambda kind: f"{kind}_{next(numbers):04}")
    rows = [failed(ledger) for _ in range(5)]
    failed(ledger, names.PART_DONE, {"replay_id": "r"}, reason="expired")
    with ledger.read() as session:
        first = many.chosen(session, limit=3, task=names.HANDLE_FACT.name)
        rest = many.chosen(session, limit=3, after=first[-1], task=names.HANDLE_FACT.name)
        assert [*first, *rest] == [row.id for row in rows]
        assert many.count(session, reason="expired") == many.count(session, task=names.PART_DONE.name) == 1


# --- told -------------------------------------------------------------------------------------------------------------


def notices(ledger: Ledger) -> list[datetime]:
    return [message.available_at for message in waiting(ledger, names.SEND_ADMIN_NOTIFICATION)]


def stand_still(monkeypatch: pytest.MonkeyPatch, at: datetime) -> None:
    for module in (failures, outbox, tasks):
        monkeypatch.setattr(module, "now", lambda: at)


def note_at(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, at: datetime) -> None:
    stand_still(monkeypatch, at)
    with ledger.write() as session:
        assert failures.note(session, failure("t"))


def test_a_thousand_failures_plan_one_notice(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_still(monkeypatch, now())  # a slow machine may take longer than they gather
    with ledger.write() as session:
        for number in range(1000):
            assert failures.note(session, failure(f"t-{number}"))
    assert len(notices(ledger)) == 1
    with ledger.read() as session:
        assert failures.open_by_task(session) == {names.HANDLE_FACT.name: 1000}


def test_failures_noted_at_once_plan_one_notice(ledger: Ledger) -> None:
    def note(number: int) -> bool:
        with ledger.write() as session:
            return failures.note(session, failure(f"t-{number}"))

    assert at_once(8, note) == [True] * 8
    assert len(notices(ledger)) == 1
    assert open_count(ledger) == 8


def test_quiet_time_is_respected(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    start = now()
    minute = timedelta(minutes=1)
    note_at(ledger, monkeypatch, start)
    (first,) = notices(ledger)
    assert first - start == timedelta(seconds=10)
    for seconds in (1, 5, 9):  # they gather
        note_at(ledger, monkeypatch, start + timedelta(seconds=seconds))
    assert len(notices(ledger)) == 1
    for minutes in (1, 2, 14):  # told a moment ago
        note_at(ledger, monkeypatch, start + minutes * minute)
    assert notices(ledger) == [first, first + 15 * minute]
    note_at(ledger, monkeypatch, start + 60 * minute)  # after a long peace at once
    assert notices(ledger)[2] == start + 60 * minute + timedelta(seconds=10)


def test_a_notice_that_fails_plans_no_notice(ledger: Ledger) -> None:
    failed(ledger, names.SEND_ADMIN_NOTIFICATION, {})
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(FailedTask)) == 1
    assert notices(ledger) == []
