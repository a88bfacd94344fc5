"""Tasks by the id of their message: each has its effect once, and its end is told rightly whatever comes late."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control.bus import names
from control.bus.context import Delivery, working_on
from control.errors import NotFound
from control.ledger import failures, late, outbox, task_views, tasks
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import Stream
from control.ledger.task_models import TaskRow
from control.ledger.task_views import TaskView
from tests.failed import failed, failure

ENDED = ("SUCCESS", "FAILURE", "EXPIRED", "DISCARDED")


@contextmanager
def delivered(task_id: str, key: str | None = None) -> Iterator[None]:
    """This thread works on a message."""
    with working_on(Delivery(task_id, names.HANDLE_FACT.name, "default", key, attempt=1)):
        yield


def sent(ledger: Ledger, state: str = "PENDING") -> str:
    with ledger.write() as session:
        task_id = outbox.add(session, names.PART_DONE, {"replay_id": "rep_1"})
        late.write(session)
        session.get_one(TaskRow, task_id).state = state
    return task_id


def state(ledger: Ledger, task_id: str) -> str:
    with ledger.read() as session:
        return session.get_one(TaskRow, task_id).state


def effect(session: Session) -> None:
    """Something that is there as often as it was done."""
    session.add(Stream(id=uuid.uuid4().hex, title="t", state="live", created_at=now()))


def effects(ledger: Ledger) -> int:
    with ledger.read() as session:
        return session.scalar(select(func.count()).select_from(Stream)) or 0


def view(ledger: Ledger, task_id: str, **seen: str) -> TaskView:
    with ledger.read() as session:
        return task_views.with_live(task_views.known(session, task_id), seen)


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_outbox", [True, False], ids=["an outbox sent it", "somebody sent it"])
def test_the_same_task_has_its_effect_once(ledger: Ledger, by_outbox: bool) -> None:
    task_id = sent(ledger) if by_outbox else "t-1"
    with delivered(task_id, key="rep_1"):
        assert [tasks.once(ledger, effect) for _ in range(3)] == [True, False, False]
    with delivered("another"):
        assert tasks.once(ledger, effect)
    assert effects(ledger) == 2
    assert state(ledger, task_id) == "SUCCESS"


def test_outside_a_task_it_is_a_transaction(ledger: Ledger) -> None:
    assert [tasks.once(ledger, effect) for _ in range(2)] == [True, True]
    assert effects(ledger) == 2


@pytest.mark.parametrize("by_outbox", [True, False], ids=["an outbox sent it", "somebody sent it"])
def test_delivered_twice_at_once_it_has_its_effect_once(ledger: Ledger, by_outbox: bool) -> None:
    task_id = sent(ledger) if by_outbox else "t-1"
    start = threading.Barrier(6)
    had: list[bool] = []

    def work() -> None:
        with delivered(task_id):
            start.wait()
            had.append(tasks.once(ledger, effect))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(had) == [False] * 5 + [True]
    assert effects(ledger) == 1


def test_an_effect_that_fails_leaves_no_note_that_it_was_had(ledger: Ledger) -> None:
    def broken(session: Session) -> None:
        effect(session)
        session.flush()
        raise ZeroDivisionError

    with delivered("t-1"):
        with pytest.raises(ZeroDivisionError):
            tasks.once(ledger, broken)
        assert effects(ledger) == 0
        assert tasks.once(ledger, effect)
    assert effects(ledger) == 1


@pytest.mark.parametrize("before", ["FAILURE", "EXPIRED", "DISCARDED"])
def test_what_was_given_up_may_still_succeed_once(ledger: Ledger, before: str) -> None:
    task_id = sent(ledger, before)
    with delivered(task_id):
        assert [tasks.once(ledger, effect) for _ in range(2)] == [True, False]
    assert state(ledger, task_id) == "SUCCESS"


def test_a_key_that_is_too_long_fails_nothing(ledger: Ledger) -> None:
    with delivered("t-1", key="k" * 300):
        assert tasks.once(ledger, effect)
    with ledger.write() as session:
        outbox.add(session, names.PART_DONE, {"replay_id": "k" * 300})
    with ledger.read() as session:
        assert len(tasks.of_key(session, "k" * 64)) == 2


# --- how it ended -----------------------------------------------------------------------------------------------------

FINISH = {
    "SUCCESS": {"PENDING", "FAILURE", "EXPIRED", "DISCARDED"},
    "FAILURE": {"PENDING"},
    "EXPIRED": {"PENDING"},
    "DISCARDED": {"FAILURE", "EXPIRED"},
}


@pytest.mark.parametrize("after", ENDED)
@pytest.mark.parametrize("before", ["PENDING", *ENDED])
def test_finish(ledger: Ledger, before: str, after: str) -> None:
    task_id = sent(ledger, before)
    with ledger.write() as session:
        assert tasks.finish(session, task_id, after) == (before in FINISH[after])
    assert state(ledger, task_id) == (after if before in FINISH[after] else before)


@pytest.mark.parametrize("before", ["PENDING", *ENDED])
def test_reopen(ledger: Ledger, before: str) -> None:
    task_id = sent(ledger, before)
    with ledger.write() as session:
        tasks.reopen(session, task_id)
    assert state(ledger, task_id) == ("SUCCESS" if before == "SUCCESS" else "PENDING")


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_what_runs_is_laid_over_what_is_pending(ledger: Ledger) -> None:
    task_id = sent(ledger)
    shown = view(ledger, task_id)
    assert (shown.state, shown.progress, shown.attempt, shown.key) == ("PENDING", None, None, "rep_1")
    live = {"task": names.PART_DONE.name, "started_at": "1800000000.5", "attempt": "2"}
    shown = view(ledger, task_id, **live, state="STARTED", progress="0.25")
    assert (shown.state, shown.progress, shown.attempt) == ("STARTED", 0.25, 2)
    assert shown.started_at is not None
    assert shown.started_at.timestamp() == 1800000000.5
    assert view(ledger, task_id, **live, state="RETRY", progress="0.25").progress is None
    assert view(ledger, task_id, **live, state="SUCCESS").progress == 1.0


def test_the_ledger_has_the_last_word(ledger: Ledger) -> None:
    seen = {"task": "t", "started_at": "1800000000.5", "attempt": "2", "state": "STARTED", "progress": "0.5"}
    shown = view(ledger, sent(ledger, "SUCCESS"), **seen)
    assert (shown.state, shown.progress, shown.attempt) == ("SUCCESS", 1.0, 2)
    assert shown.failure is None
    row = failed(ledger)
    shown = view(ledger, row.task_id, **seen)
    assert (shown.state, shown.progress, shown.attempt) == ("FAILURE", None, 6)
    assert shown.failure is not None
    assert (shown.failure.failed_task_id, shown.failure.code) == (row.id, "internal-error")


def test_what_was_seen_before_it_failed_is_not_what_it_does_now(ledger: Ledger) -> None:
    row = failed(ledger)
    with ledger.write() as session:
        failures.replay(session, row.id, "ann")
    noted = row.received_at.timestamp()
    stale = {"task": row.task, "state": "STARTED", "attempt": "6", "started_at": f"{noted - 1}"}
    assert view(ledger, row.task_id, **stale).state == "PENDING"
    assert view(ledger, row.task_id, **stale).attempt is None
    fresh = stale | {"started_at": f"{noted + 1}", "attempt": "1"}
    assert (view(ledger, row.task_id, **fresh).state, view(ledger, row.task_id, **fresh).attempt) == ("STARTED", 1)


@pytest.mark.parametrize(("reason", "expected"), [("poison", "FAILURE"), ("expired", "EXPIRED")])
def test_a_task_no_outbox_sent_is_known_by_its_failure(ledger: Ledger, reason: str, expected: str) -> None:
    row = failure("sent-by-hand", reason=reason)
    with ledger.write() as session:
        assert failures.note(session, row)
    assert view(ledger, "sent-by-hand").state == expected
    with ledger.write() as session:
        failures.replay(session, row.id, "ann")
    assert view(ledger, "sent-by-hand").state == "PENDING"
    again = failure("sent-by-hand", reason=reason)
    with ledger.write() as session:
        assert failures.note(session, again)
        failures.discard(session, again.id, "ann")
    shown = view(ledger, "sent-by-hand")
    assert shown.state == "DISCARDED"
    assert shown.failure is not None
    assert shown.failure.failed_task_id == again.id


def test_a_task_nobody_knows(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="There is no task t-1"):
        view(ledger, "t-1")
    with pytest.raises(NotFound):
        view(ledger, "t-1", progress="0.5")  # all else of it is forgotten
    seen = {"task": names.TRANSCODE_CHUNK.name, "started_at": "1800000000.5", "attempt": "1", "state": "STARTED"}
    shown = view(ledger, "t-1", **seen, key="rep_9")
    assert (shown.state, shown.queue, shown.key, shown.created_at) == ("STARTED", "low_priority", "rep_9", None)


def test_by_key_newest_first(ledger: Ledger) -> None:
    ids = [sent(ledger) for _ in range(4)]
    with ledger.write() as session:
        assert failures.note(session, failure("by-hand", names.PART_DONE, {"replay_id": "rep_1"}))
        assert failures.note(session, failure(ids[1], names.PART_DONE, {"replay_id": "rep_1"}))
        assert failures.note(session, failure("else", names.PART_DONE, {"replay_id": "rep_2"}))
    with ledger.read() as session:
        found = task_views.known_of_key(session, "rep_1", 10)
        assert [known.id for known in found] == ["by-hand", *ids[::-1]]
        assert [known.view.state for known in found if known.view] == [
            "FAILURE",
            *["PENDING"] * 2,
            "FAILURE",
            "PENDING",
        ]
        assert [known.id for known in task_views.known_of_key(session, "rep_1", 2)] == ["by-hand", ids[3]]
        assert task_views.known_of_key(session, "rep_9", 10) == []
