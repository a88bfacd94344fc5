"""Messages to people as the ledger keeps them: one a business key, one sender at a time; and the pace of many."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from control.bus import names
from control.errors import Conflict
from control.ledger import bulks, notices
from control.ledger.base import now
from control.ledger.engine import Ledger
from control.ledger.models import OutboxRow
from control.ledger.notice_models import Bulk, Notice

TO = "mei@example.com"
CONTENT: dict[str, Any] = {"locale": "en", "subject": "Sale", "text": "Tonight.", "html": None, "unsubscribe": None}


def ask(ledger: Ledger, key: str = "welcome:u1", **changes: Any) -> str | None:
    facts = {"to": TO, "template": "welcome", "locale": "en", "data": {"name": "Mei"}, "about": "u1"}
    with ledger.write() as session:
        return notices.request(session, names.SEND_WELCOME_EMAIL, key=key, **(facts | changes))


def asked(ledger: Ledger, key: str = "welcome:u1") -> str:
    found = ask(ledger, key)
    assert found
    return found


def state(ledger: Ledger, notice_id: str) -> str:
    with ledger.read() as session:
        return notices.load(session, notice_id).state


def claim(ledger: Ledger, notice_id: str, by: str = "a", **options: Any) -> bool:
    with ledger.write() as session:
        return notices.sending(session, notice_id, by=by, **options) is not None


def queued(ledger: Ledger) -> list[OutboxRow]:
    with ledger.read() as session:
        return list(session.scalars(select(OutboxRow).order_by(OutboxRow.id)))


def test_one_a_business_key_and_no_address_on_the_bus(ledger: Ledger) -> None:
    first = ask(ledger)
    assert first
    assert ask(ledger, to="other@example.com") is None
    (row,) = queued(ledger)
    assert (row.task, row.payload) == (names.SEND_WELCOME_EMAIL.name, {"notice_id": first, "about": "u1"})


def test_nobody_to_send_to_is_no_message(ledger: Ledger) -> None:
    assert ask(ledger, to=None) is None
    assert queued(ledger) == []


def test_a_key_of_any_length_is_one_key(ledger: Ledger) -> None:
    assert ask(ledger, "k" * 1000)
    assert ask(ledger, "k" * 1000) is None
    assert ask(ledger, "k" * 999 + "l")


def test_one_sends_at_a_time_until_its_claim_has_run_out(ledger: Ledger) -> None:
    notice_id = asked(ledger)
    assert claim(ledger, notice_id)
    assert not claim(ledger, notice_id, "b")
    with ledger.write() as session:
        session.execute(update(Notice).values(claimed_at=now() - notices.LEASE - timedelta(seconds=1)))
    assert claim(ledger, notice_id, "b")


def test_whose_process_is_gone_has_no_claim(ledger: Ledger) -> None:
    notice_id = asked(ledger)
    assert claim(ledger, notice_id, "dead")
    assert claim(ledger, notice_id, "b", gone=lambda process: process == "dead")


@pytest.mark.parametrize("end", ["sent", "bounced", "suppressed", "cancelled"])
def test_what_has_ended_is_not_sent_again(ledger: Ledger, end: str) -> None:
    notice_id = asked(ledger)
    with ledger.write() as session:
        notices.failed(session, notice_id, "", end)
    assert not claim(ledger, notice_id)


def test_what_failed_can_be_tried_again_and_what_was_sent_stays_so(ledger: Ledger) -> None:
    notice_id = asked(ledger)
    assert claim(ledger, notice_id)
    with ledger.write() as session:
        notices.failed(session, notice_id, "The server was away.")
    assert claim(ledger, notice_id)
    with ledger.write() as session:
        notices.sent(session, notice_id, "provider-1")
        notices.failed(session, notice_id, "too late")
        notices.released(session, notice_id, "too late")
        assert notices.load(session, notice_id).provider_id == "provider-1"
    assert state(ledger, notice_id) == "sent"


def test_lost_messages_are_sent_again_once_a_while(ledger: Ledger) -> None:
    lost, ended = asked(ledger), asked(ledger, "other")
    with ledger.write() as session:
        notices.failed(session, ended, "")
        assert notices.send_lost(session) == 0  # they are young
        session.execute(update(Notice).values(queued_at=now() - timedelta(hours=1)))
        assert notices.send_lost(session) == 1
        assert notices.send_lost(session) == 0
        assert notices.send_lost(session, bus_is_empty=True) == 1
    assert [row.payload["notice_id"] for row in queued(ledger)[2:]] == [lost, lost]


def test_an_address_is_suppressed_by_its_hash_until_that_is_lifted(ledger: Ledger) -> None:
    notice_id = asked(ledger)
    with ledger.write() as session:
        notice = notices.load(session, notice_id)
        notices.suppress(session, f" {TO.upper()}", "unsubscribed")
        assert notices.suppressed(session, notice) is None  # of one's own orders one is told
        notices.suppress(session, TO, "bounced")
        notices.suppress(session, TO, "unsubscribed")
        found = notices.suppressed(session, notice)
        assert found
        assert (found.reason, TO in found.address_hash) == ("bounced", False)
        notices.lift(session, TO)
        assert notices.suppressed(session, notice) is None


@pytest.mark.parametrize(
    ("whole", "shown"), [(TO, "m•••@example.com"), ("+886912345678", "+886•••678"), ("@x", "•••@x"), ("", "•••")]
)
def test_an_address_is_shown_in_part(whole: str, shown: str) -> None:
    assert notices.masked(whole) == shown


# --- many -------------------------------------------------------------------------------------------------------------


def many(ledger: Ledger, number: int = 5, bulk_id: str = "b", **changes: Any) -> None:
    to = [{"email": f"buyer{each}@example.com"} for each in range(number)]
    with ledger.write() as session:
        bulks.create(session, bulk_id, CONTENT | changes, to)


def test_a_bulk_send_is_one_however_often_it_is_asked_for(ledger: Ledger) -> None:
    many(ledger)
    many(ledger)
    assert [row.payload for row in queued(ledger)] == [{"bulk_id": "b"}]
    with pytest.raises(Conflict):
        many(ledger, subject="Another")
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Notice)) == 5


def test_an_address_that_is_there_twice_gets_one_mail(ledger: Ledger) -> None:
    with ledger.write() as session:
        bulks.create(session, "b", CONTENT, [{"email": TO}, {"email": TO.upper()}, {"email": "x@example.com"}])
        assert bulks.counts(session, "b") == {"pending": 2}


def test_a_cancelled_one_has_nothing_left_to_send(ledger: Ledger) -> None:
    many(ledger)
    with ledger.read() as session:
        first = bulks.chunk(session, "b", 1)[0]
    assert claim(ledger, first)
    with ledger.write() as session:
        bulks.cancel(session, "b")
        bulks.cancel(session, "b")
    with ledger.write() as session:
        notices.released(session, first, "The server was away.")  # the one that was being sent, and was not
        bulks.went_on(session, "b", sent=0, stumbled=True, free_at=now())
        assert bulks.counts(session, "b") == {"cancelled": 5}
        assert bulks.get(session, "b").state == "cancelled"
    assert len(queued(ledger)) == 1


def test_all_bulk_sends_share_one_pace(ledger: Ledger) -> None:
    with ledger.write() as session:
        assert bulks.take_turn(session, "smtp", "a", 5.0) == 0.0
        assert bulks.take_turn(session, "smtp", "a", 5.0) == 0.0  # its message came twice
        assert bulks.take_turn(session, "smtp", "b", 5.0) > 4
        assert bulks.take_turn(session, "ses", "b", 5.0) == 0.0
        free_at = bulks.end_turn(session, "smtp", "a")
        assert 4 < (free_at - now()).total_seconds() <= 5
        assert 4 < bulks.take_turn(session, "smtp", "b", 5.0) <= 5  # between two chunks


def test_a_chunk_that_takes_long_is_waited_for(ledger: Ledger) -> None:
    with ledger.write() as session:
        bulks.take_turn(session, "smtp", "a", 0.0)
        assert bulks.take_turn(session, "smtp", "b", 0.0) >= 1
        bulks.end_turn(session, "smtp", "a")
        assert bulks.take_turn(session, "smtp", "b", 0.0) == 0.0


def test_what_could_not_be_sent_goes_to_the_end_of_the_line_and_later(ledger: Ledger) -> None:
    many(ledger, 2)
    waits = []
    with ledger.read() as session:
        first, second = bulks.chunk(session, "b", 2)
    assert claim(ledger, first)
    with ledger.write() as session:
        notices.released(session, first, "busy")
        assert bulks.chunk(session, "b", 2) == [second, first]
        for _ in range(9):
            bulks.went_on(session, "b", sent=0, stumbled=True, free_at=now())
            waits.append((bulks.get(session, "b").queued_at - now()).total_seconds())
        bulks.went_on(session, "b", sent=1, stumbled=True, free_at=now())
        assert bulks.get(session, "b").stumbles == 0
    assert [round(wait / 10) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_lost_chunk_is_sent_again(ledger: Ledger) -> None:
    many(ledger)
    with ledger.write() as session:
        assert bulks.send_lost(session) == 0
        session.execute(update(Bulk).values(queued_at=now() - timedelta(hours=1)))
        assert bulks.send_lost(session) == 1
        assert bulks.send_lost(session) == 0


def test_what_ended_long_ago_is_forgotten(ledger: Ledger) -> None:
    ended, waiting = asked(ledger), asked(ledger, "other")
    with ledger.write() as session:
        notices.failed(session, ended, "")
        assert notices.forget(session, now() - timedelta(days=1), 10) == 0
        assert notices.forget(session, now() + timedelta(days=1), 10) == 1
    assert state(ledger, waiting) == "pending"
