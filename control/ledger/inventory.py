"""Stock: each line of an order holds its quantity in one of its product's figures, and moves it from one to another.

A line and its product change in one transaction, so what came twice, or half, is right after the next look. Of stock,
nobody takes more than there is: the statement that takes it is the one that looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from control.ledger.order_models import Order, OrderLine, Product

HOLDS: Final[Mapping[str, str]] = {
    "reserved": "reserved",
    "paid": "reserved",
    "confirmed": "sold",
}
"""State of an order → what its lines are to hold; in all others, nothing."""
_FIGURES: Final = {"nothing": Product.stock, "reserved": Product.reserved, "sold": Product.sold}


def take(session: Session, lines: Sequence[OrderLine]) -> bool:
    """Have the lines hold what they need, all of them or none; False where one product has not enough left. The order
    is locked by the caller, and its products' rows are from here on."""
    free = [line for line in lines if line.holds == "nothing"]
    if len(free) == 1:
        return _move(session, free[0], "reserved")
    with session.begin_nested() as here:
        for line in _in_order(free):
            if not _move(session, line, "reserved"):
                here.rollback()
                return False
    return True


def lines_and_missing(session: Session, order_id: str) -> tuple[list[OrderLine], list[str]]:
    """The lines of an order, and the ids of those products there seems not to be enough of: a look that locks
    nothing."""
    query = select(OrderLine, Product.stock).join(Product, Product.id == OrderLine.product_id)
    found = session.execute(query.where(OrderLine.order_id == order_id).order_by(OrderLine.number)).all()
    missing = [line.product_id for line, stock in found if line.holds == "nothing" and stock < line.quantity]
    return [line for line, _ in found], missing


def settle(session: Session, order: Order, lines: Sequence[OrderLine]) -> int:
    """Have the lines hold what the state of the order, locked by the caller, wants: sold ones are sold, and what was
    kept for nobody is free again. How many lines changed."""
    wanted = HOLDS.get(order.state, "nothing")
    if order.state == "placed":
        return 0
    late = [line for line in lines if line.holds != wanted]
    for line in _in_order(late):
        if not _move(session, line, wanted):
            raise RuntimeError(f"the stock of {line.product_id} is not what order {order.id} believes")
    return len(late)


def _in_order(lines: Sequence[OrderLine]) -> list[OrderLine]:
    """In one order, whoever locks several products: so none wait for each other."""
    return sorted(lines, key=lambda line: (line.product_id, line.number))


def _move(session: Session, line: OrderLine, holds: str) -> bool:
    source, target = _FIGURES[line.holds], _FIGURES[holds]
    mine = update(Product).where(Product.id == line.product_id, source >= line.quantity)
    values = {source.key: source - line.quantity, target.key: target + line.quantity}
    moved = session.execute(mine.values(values), execution_options={"synchronize_session": False})
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        return False
    line.holds = holds
    return True
