"""Which message this thread works on, for whoever makes its effect count once; and what this process is called."""

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


_node: str | None = None


def name_node(name: str) -> None:
    """What the media worker of this process is called."""
    global _node
    _node = name


def node_name() -> str | None:
    """None where there is no media worker."""
    return _node
