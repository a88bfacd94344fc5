"""What follows from a fact of an order: in the transaction that makes it a fact, where this process knows how and is
asked to; else by a task.

A task costs a message, a look by the relay and a transaction of its own; most payments need none of that. But no
payment may be lost because what follows from it cannot be done: then `Failed` undoes both, and the fact is stored
alone, with the task sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.orm import Session

from control.ledger.order_models import Order

Step = Callable[[Session, Order], None]
_HELD: Final = "afterlive_consequences"
_steps: dict[str, Step] = {}


class Failed(Exception):
    """What follows could not be done; nothing of the transaction may stay."""


def know(fact: str, step: Step) -> None:
    """From now on this process knows what follows from `fact`."""
    _steps[fact] = step


@contextmanager
def at_once(session: Session) -> Iterator[None]:
    """What follows from the facts of this block is done at its end, last of all: it locks rows that many orders want.
    Raises Failed."""
    held: list[tuple[str, Order]] = []
    session.info[_HELD] = held
    try:
        yield
    finally:
        del session.info[_HELD]
    for fact, order in held:
        try:
            with session.no_autoflush:  # the order changes again: one statement for both
                _steps[fact](session, order)
        except Exception as error:
            raise Failed(f"{fact} of {order.id}") from error


def hold(session: Session, fact: str, order: Order) -> bool:
    """Whether what follows is done by this transaction; the order is locked by it."""
    held: list[tuple[str, Order]] | None = session.info.get(_HELD)
    if held is None or fact not in _steps:
        return False
    held.append((fact, order))
    return True
