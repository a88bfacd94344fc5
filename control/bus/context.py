"""Which message this thread works on, for whoever makes its effect count once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Delivery:
    """One delivery of one message."""

    task_id: str
    task: str
    queue: str
    key: str | None
    attempt: int


_current: ContextVar[Delivery | None] = ContextVar("afterlive_delivery", default=None)


def current_delivery() -> Delivery | None:
    """None outside a task."""
    return _current.get()


@contextmanager
def working_on(delivery: Delivery) -> Iterator[None]:
    """Within the block, this thread works on `delivery`."""
    token = _current.set(delivery)
    try:
        yield
    finally:
        _current.reset(token)
