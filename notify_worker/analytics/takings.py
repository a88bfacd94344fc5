"""Pure: from sales to what was taken, when, and at which moment most. Times as in `sessions`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from control.ledger.figures import CurrencyTotal
from notify_worker.analytics.sessions import MINUTE


class Sold(NamedTuple):
    """An order that was paid at `at`; the money may have gone back later."""

    at: int
    currency: str
    amount_minor: int
    items: int
    refunded: bool = False


class Best(NamedTuple):
    """A minute, from an order of it on."""

    at: int
    orders: int
    revenue_minor: int


@dataclass
class _Window:
    """The minute up to now, and the best there was."""

    sales: deque[tuple[int, int]] = field(default_factory=deque)
    revenue: int = 0
    best: Best | None = None

    def add(self, at: int, amount_minor: int) -> None:
        while self.sales and self.sales[0][0] <= at - MINUTE:
            self.revenue -= self.sales.popleft()[1]
        self.sales.append((at, amount_minor))
        self.revenue += amount_minor
        if self.best is None or self.revenue > self.best.revenue_minor:
            self.best = Best(self.sales[0][0], len(self.sales), self.revenue)


@dataclass
class Takings:
    """What was sold, with the timeline from `begin` to `end` (None: open)."""

    begin: int
    end: int | None = None
    orders: int = 0
    totals: dict[str, CurrencyTotal] = field(default_factory=dict)
    minutes: dict[int, tuple[int, dict[str, int]]] = field(default_factory=dict)
    """Orders and revenue by currency, by minute since `begin`."""
    _windows: dict[str, _Window] = field(default_factory=dict)

    def add(self, sold: Sold) -> None:
        """In the order of their time."""
        self.orders += 1
        total = self.totals.setdefault(sold.currency, CurrencyTotal(currency=sold.currency))
        total.orders += 1
        total.items += sold.items
        total.revenue_minor += sold.amount_minor
        if sold.refunded:
            total.refunds += 1
            total.refunded_minor += sold.amount_minor
        if self.end is not None and sold.at >= self.end:
            return  # from the replay
        at = max(sold.at, self.begin)
        orders, revenue = self.minutes.get((at - self.begin) // MINUTE, (0, {}))
        revenue[sold.currency] = revenue.get(sold.currency, 0) + sold.amount_minor
        self.minutes[(at - self.begin) // MINUTE] = (orders + 1, revenue)
        self._windows.setdefault(sold.currency, _Window()).add(at, sold.amount_minor)

    def best(self) -> dict[str, Best]:
        """By currency: the first of the minutes in which most was taken."""
        return {currency: window.best for currency, window in sorted(self._windows.items()) if window.best}
