"""Who watched when, and what was taken when: worked out by hand, and by counting second by second."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_worker.analytics.sessions import SECOND, Audience, Seen, sessions
from notify_worker.analytics.takings import Sold, Takings

GRACE = 60


def seen(text: str) -> list[Seen]:
    """`a0j a30h b10j`: viewer, second, join, heartbeat or leave."""
    kinds = {"j": "join", "h": "heartbeat", "l": "leave"}
    return [Seen(word[0], int(word[1:-1]) * SECOND, kinds[word[-1]]) for word in text.split()]


def in_order(events: Iterable[Seen]) -> list[Seen]:
    """As the ledger reads them."""
    rank = {"leave": 0, "join": 1, "heartbeat": 2}
    return sorted(set(events), key=lambda event: (event.viewer_id, event.at, rank[event.kind]))


def watched(events: Iterable[Seen]) -> list[tuple[str, int, int]]:
    return [
        (one.viewer_id, one.start // SECOND, one.end // SECOND) for one in sessions(in_order(events), GRACE * SECOND)
    ]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("a0j a30h a50l", [("a", 0, 50)]),
        ("a0j a30h", [("a", 0, 90)]),  # never left: as long as the grace after the last sign
        ("a0j a60h", [("a", 0, 120)]),
        ("a0j a61h", [("a", 0, 60), ("a", 61, 121)]),  # was gone in between
        ("a0j a100l", [("a", 0, 60)]),  # nobody saw it between: what it says then does not count
        ("a0j a10l a10j a20l", [("a", 0, 10), ("a", 10, 20)]),
        ("a0j a10l a15h", [("a", 0, 10), ("a", 15, 75)]),  # on another device
        ("a5h", [("a", 5, 65)]),  # its join was lost
        ("a5l", []),
        ("a0j b10j a20l b20l", [("a", 0, 20), ("b", 10, 20)]),
    ],
)
def test_sessions(events: str, expected: list[tuple[str, int, int]]) -> None:
    assert watched(seen(events)) == expected


def audience(events: Iterable[Seen], begin: int, end: int | None) -> Audience:
    made = Audience(begin * SECOND, end * SECOND if end is not None else None)
    for one in sessions(in_order(events), GRACE * SECOND):
        made.add(one)
    return made


def test_the_peak_is_the_first_moment_at_which_most_watch() -> None:
    found = audience(seen("a0j a30l b30j b90l c70j c95l d71j d80l e200j e210l"), 0, None)
    assert found.peak() == (3, 71 * SECOND)
    assert found.minutes() == {0: 1, 1: 3, 3: 1}
    assert found.watched == (30 + 60 + 25 + 9 + 10) * SECOND


def test_a_timeline_ends_with_its_stream() -> None:
    found = audience(seen("a10j a50h b300j"), 20, 100)
    assert found.watched == 80 * SECOND
    assert found.minutes() == {0: 1, 1: 1}
    assert audience([], 0, None).peak() is None


EVENTS = st.lists(
    st.builds(Seen, st.sampled_from("abc"), st.integers(0, 400).map(lambda second: second * SECOND),
              st.sampled_from(["join", "heartbeat", "heartbeat", "leave"])),
    max_size=30,
)  # fmt: skip


@given(EVENTS, st.integers(0, 150), st.integers(0, 350))
def test_counting_second_by_second_gives_the_same(events: list[Seen], begin: int, length: int) -> None:
    there = [
        {viewer for viewer, start, end in watched(events) if start <= second < end}
        for second in range(begin, begin + length)
    ]
    found = audience(events, begin, begin + length)
    assert found.watched == sum(map(len, there)) * SECOND
    most = max(map(len, there), default=0)
    assert found.peak() == (((most, (begin + [len(now) for now in there].index(most)) * SECOND)) if most else None)
    by_minute = {minute: max(map(len, there[minute * 60 : minute * 60 + 60])) for minute in range((length + 59) // 60)}
    assert found.minutes() == {minute: viewers for minute, viewers in by_minute.items() if viewers}


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(events: list[Seen], chance: random.Random) -> None:
    again = events + events[: len(events) // 2]
    chance.shuffle(again)
    assert watched(again) == watched(events)


@given(EVENTS, st.lists(st.integers(0, 460), max_size=5))
def test_days_add_up_to_the_whole(events: list[Seen], midnights: list[int]) -> None:
    # What is seen within the grace of a day tells all about that day.
    whole = audience(events, 0, 470).watched
    cuts = sorted({0, *midnights, 470})
    total = 0
    for begin, end in pairwise(cuts):
        near = [event for event in events if begin - GRACE <= event.at // SECOND <= end + GRACE]
        total += audience(near, begin, end).watched
    assert total == whole


def takings(sales: Iterable[tuple[int, str, int]], begin: int = 0, end: int | None = None) -> Takings:
    made = Takings(begin * SECOND, end * SECOND if end is not None else None)
    for second, currency, amount in sorted(sales):
        made.add(Sold(second * SECOND, currency, amount, items=1))
    return made


def test_takings_of_several_currencies_are_not_mixed() -> None:
    found = takings([(5, "TWD", 100), (10, "USD", 900), (70, "TWD", 50), (400, "TWD", 7)], end=300)
    assert found.minutes == {0: (2, {"TWD": 100, "USD": 900}), 1: (1, {"TWD": 50})}
    assert found.orders == 4
    assert {code: (total.orders, total.revenue_minor) for code, total in found.totals.items()} == {
        "TWD": (3, 157),  # with what was bought from the replay
        "USD": (1, 900),
    }


def test_what_went_back_is_counted_beside_what_came() -> None:
    found = Takings(0)
    found.add(Sold(1, "TWD", 500, items=2))
    found.add(Sold(2, "TWD", 300, items=1, refunded=True))
    total = found.totals["TWD"]
    assert (total.revenue_minor, total.refunds, total.refunded_minor, total.net_minor, total.items) == (
        800,
        1,
        300,
        500,
        3,
    )


SALES = st.lists(st.tuples(st.integers(0, 400), st.just("TWD"), st.integers(0, 9)), max_size=30)


@given(SALES)
def test_no_sixty_seconds_took_more_than_the_best(sales: list[tuple[int, str, int]]) -> None:
    best = takings(sales).best().get("TWD")
    if best is None:
        assert not sales
        return
    sums = {start: sum(amount for second, _, amount in sales if start <= second < start + 60) for start, _, _ in sales}
    assert best.revenue_minor == max(sums.values())
    assert sums[best.at // SECOND] == best.revenue_minor
