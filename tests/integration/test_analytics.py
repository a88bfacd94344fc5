"""What was watched and sold is counted from all there is of it, whatever came late, twice or at the same time."""

from __future__ import annotations

import random
import threading
from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from control.errors import Conflict
from control.ledger import analytics
from control.ledger.analytics_models import StreamAnalytics, ViewEvent
from control.ledger.base import now
from control.ledger.engine import Ledger
from notify_worker.analytics.aggregate import aggregate, count
from tests.viewers import (
    GRACE_SECONDS,
    asked_for,
    at,
    counted,
    figures,
    in_batches,
    refund,
    sell,
    stream,
    views,
    watch,
)  # fmt: skip

EVENTS = views("a0j a30h a60h a70l b10j b40h b65h b200h b230h c20j c50h c65l d610j")


def test_figures_of_a_stream(ledger: Ledger) -> None:
    stream(ledger)
    watch(ledger, EVENTS)
    for number, second, amount in ((1, 5, 300), (2, 50, 100), (3, 100, 250), (4, 130, 200), (5, 900, 40)):
        sell(ledger, f"o{number}", second, amount)
    sell(ledger, "usd", 30, 99, currency="USD")
    refund(ledger, "o2", at(5000))
    found = counted(ledger)
    assert (found.events, found.viewers, found.orders) == (13, 3, 6)
    assert found.watch_seconds == 70 + 115 + 90 + 45  # d came after the end
    assert found.peak
    assert (found.peak.viewers, found.peak.minute, found.peak.at) == (3, 0, at(20))
    assert (found.buyers, found.conversion) == (6, 2.0)
    assert [(one.minute, one.viewers, one.orders, one.revenue_minor) for one in found.minutes] == [
        (0, 3, 3, {"TWD": 400, "USD": 99}),
        (1, 3, 1, {"TWD": 250}),
        (2, 1, 1, {"TWD": 200}),
        (3, 1, 0, {}),
        (4, 1, 0, {}),
    ]
    twd, usd = found.totals
    assert (twd.orders, twd.revenue_minor, twd.refunds, twd.refunded_minor) == (5, 890, 1, 100)
    assert (usd.currency, usd.revenue_minor) == ("USD", 99)
    # Not the first minute with its 400, but the sixty seconds from the third order on.
    assert [(one.currency, one.offset_seconds, one.orders, one.revenue_minor) for one in found.best_moments] == [
        ("TWD", 100, 2, 450),
        ("USD", 30, 1, 99),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_order_repetition_and_batches_do_not_matter(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    stream(ledger)
    new = sum(watch(ledger, batch) for batch in in_batches(EVENTS, chance))
    assert new == len(EVENTS)
    stream(ledger, "in-order")
    watch(ledger, EVENTS, "in-order")
    mixed, plain = counted(ledger), counted(ledger, "in-order")
    assert mixed == plain
    assert counted(ledger) == mixed  # and again


def test_an_id_is_one_event_of_its_stream(ledger: Ledger) -> None:
    stream(ledger)
    stream(ledger, "other")
    first, again = views("a0j"), views("a0j")
    assert watch(ledger, first) == 1
    assert watch(ledger, [*again, *again]) == 0
    assert watch(ledger, again, "other") == 1


def test_sales_and_refunds_count_once_in_either_order(ledger: Ledger) -> None:
    stream(ledger)
    refund(ledger, "o1", at(90))  # before its sale is known
    for _ in range(2):
        sell(ledger, "o1", 10, 500)
        sell(ledger, "o2", 20, 700)
        refund(ledger, "o2", at(100))
    (total,) = counted(ledger).totals
    assert (total.orders, total.revenue_minor, total.refunds, total.refunded_minor) == (2, 1200, 2, 1200)


def test_many_batches_ask_for_one_count_and_a_late_one_for_another(ledger: Ledger) -> None:
    stream(ledger)
    for batch in in_batches(EVENTS, random.Random(1)):
        watch(ledger, batch)
    sell(ledger, "o1", 5, 100)
    assert asked_for(ledger) == 1
    assert counted(ledger).viewers == 3
    watch(ledger, EVENTS)  # known already
    assert asked_for(ledger) == 1
    watch(ledger, views("e100j"))
    assert asked_for(ledger) == 2
    assert counted(ledger).viewers == 4


def test_what_comes_while_a_count_runs_is_counted_by_the_next(ledger: Ledger) -> None:
    stream(ledger)
    watch(ledger, views("a0j"))
    with ledger.write() as session:
        analytics.begin(session, "s")
    early = aggregate(ledger, "s", grace_seconds=GRACE_SECONDS)
    watch(ledger, views("b0j"))
    assert asked_for(ledger) == 2
    assert counted(ledger).viewers == 2
    assert early
    with ledger.write() as session:  # the first one ends last
        assert early[1]
        assert not analytics.counted(session, "s", early[0], early[1].model_dump(mode="json"))
    assert figures(ledger).viewers == 2


def test_a_count_that_got_lost_is_asked_for_again(ledger: Ledger) -> None:
    stream(ledger)
    watch(ledger, views("a0j"))
    with ledger.write() as session:
        assert analytics.recount_lost(session) == 0  # it is on its way
        assert analytics.recount_lost(session, bus_is_empty=True) == 1
        session.execute(update(StreamAnalytics).values(scheduled_at=now() - timedelta(minutes=11)))
        assert analytics.recount_lost(session) == 1
        analytics.begin(session, "s")  # and the worker is killed
        session.execute(update(StreamAnalytics).values(started_at=now() - timedelta(minutes=31)))
        assert analytics.recount_lost(session) == 1
    counted(ledger)
    with ledger.write() as session:
        assert analytics.recount_lost(session, bus_is_empty=True) == 0


def test_a_stream_that_is_not_known_is_counted_no_more(ledger: Ledger) -> None:
    sell(ledger, "o1", 0, 100, stream_id="elsewhere")
    with ledger.write() as session:
        analytics.begin(session, "elsewhere")
    count(ledger, "elsewhere", grace_seconds=GRACE_SECONDS)
    with ledger.write() as session:
        assert analytics.recount_lost(session, bus_is_empty=True) == 0


def test_batches_at_the_same_time_neither_lose_nor_double(ledger: Ledger) -> None:
    stream(ledger)
    everything = [
        event for number in range(40) for event in views(" ".join(f"v{number * 10 + second}h" for second in range(5)))
    ]
    batches = [random.Random(seed).sample(everything, len(everything)) for seed in range(6)]
    accepted: list[int] = []
    threads = [threading.Thread(target=lambda mine=batch: accepted.append(watch(ledger, mine))) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 6
    assert sum(accepted) == len({event.id for event in everything})
    assert asked_for(ledger) == 1
    assert counted(ledger).events == sum(accepted)


def test_a_stream_that_was_cleaned_up_keeps_its_viewers_and_still_counts_sales(ledger: Ledger) -> None:
    stream(ledger)
    watch(ledger, EVENTS)
    before = counted(ledger)
    with ledger.write() as session:
        session.execute(update(StreamAnalytics).values(sealed_at=now()))
        session.execute(delete(ViewEvent))
    with pytest.raises(Conflict):
        watch(ledger, views("z1j"))
    sell(ledger, "o1", 30, 100)
    after = counted(ledger)
    assert (after.viewers, after.watch_seconds, after.peak) == (before.viewers, before.watch_seconds, before.peak)
    assert (after.orders, after.minutes[0].viewers, after.minutes[0].revenue_minor) == (1, 3, {"TWD": 100})
