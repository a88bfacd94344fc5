"""Stock: each line of an order holds its quantity in one of its product's figures, and moves it from one to another.

A line and its product change in one transaction, so what came twice, or half, is right after the next look. Of stock,
nobody takes more than there is: the statement that takes it is the one that looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Final, cast

from sqlalchemy import BigInteger, Table, Update, bindparam, select, update
from sqlalchemy.orm import Session

from control.errors import NotFound
from control.ledger import late
from control.ledger.order_models import Order, OrderLine, Product

HOLDS: Final[Mapping[str, str]] = {
    "reserved": "reserved",
    "paid": "reserved",
    "confirmed": "sold",
}
"""State of an order → what its lines are to hold; in all others, nothing."""
_FIGURES: Final = {"nothing": "stock", "reserved": "reserved", "sold": "sold"}
_WITH_STOCK: Final = (
    select(Order, OrderLine, Product.stock)
    .join(OrderLine, OrderLine.order_id == Order.id)
    .join(Product, Product.id == OrderLine.product_id)
    .where(Order.id == bindparam("order_id"))
    .order_by(OrderLine.number)
    .with_for_update(of=Order, key_share=True)
)
_PRODUCTS: Final = cast(Table, Product.__table__)


def take(session: Session, lines: Sequence[OrderLine]) -> bool:
    """Have the lines hold what they need, all of them or none; False where one product has not enough left. The order
    is locked by the caller, and its products' rows are from here on."""
    free = [line for line in lines if line.holds == "nothing"]
    if not free:
        return True
    late.write(session)  # what is undone below is the move alone
    with session.begin_nested() as here:
        if _move_all(session, free, "reserved"):
            here.rollback()
            return False
    return True


def take_or_undo(session: Session, lines: Sequence[OrderLine]) -> bool:
    """As `take`, for who undoes the whole transaction where it is False."""
    return not _move_all(session, [line for line in lines if line.holds == "nothing"], "reserved")


def order_and_missing(session: Session, order_id: str) -> tuple[Order, list[OrderLine], list[str]]:
    """An order, for this transaction alone to decide on; its lines, and the ids of those products there seems not to be
    enough of: a look that locks no product. Lines are as they were before a wait for the order's lock: of an order
    that is still `placed` they hold nothing. Raises NotFound."""
    fresh = {"populate_existing": True}
    found = session.execute(_WITH_STOCK, {"order_id": order_id}, execution_options=fresh).all()
    if not found:
        raise NotFound(noun="order", key=order_id)
    missing = [line.product_id for _, line, stock in found if line.holds == "nothing" and stock < line.quantity]
    return found[0][0], [line for _, line, _ in found], missing


def settle(session: Session, order: Order, lines: Sequence[OrderLine]) -> int:
    """Have the lines hold what the state of the order, locked by the caller, wants: sold ones are sold, and what was
    kept for nobody is free again. How many lines changed."""
    wanted = HOLDS.get(order.state, "nothing")
    if order.state == "placed":
        return 0
    changed = [line for line in lines if line.holds != wanted]
    for line in _move_all(session, changed, wanted):
        raise RuntimeError(f"the stock of {line.product_id} is not what order {order.id} believes")
    return len(changed)


def _move_all(session: Session, lines: Sequence[OrderLine], holds: str) -> list[OrderLine]:
    """Those that did not get what they are to hold: at the first the rest is left. Whatever else the transaction has to
    say is written before: in a flash sale everybody waits for a product's row, and from here to the commit is not far.
    In one order, whoever locks several: so none wait for each other."""
    moves = [(line, line.holds) for line in sorted(lines, key=lambda line: (line.product_id, line.number))]
    for line in lines:
        line.holds = holds
    late.write(session)
    for line, held in moves:
        given = {"product": line.product_id, "quantity": line.quantity}
        if session.connection().execute(_MOVES[held, holds], given).rowcount != 1:
            return [line]
    return []


def _moving(source: str, target: str) -> Update:
    quantity = bindparam("quantity", type_=BigInteger)
    gives = _PRODUCTS.c[_FIGURES[source]]
    takes = _PRODUCTS.c[_FIGURES[target]]
    mine = update(_PRODUCTS).where(_PRODUCTS.c.id == bindparam("product"), gives >= quantity)
    return mine.values({gives: gives - quantity, takes: takes + quantity})


_MOVES: Final = {(source, target): _moving(source, target) for source, target in permutations(_FIGURES, 2)}
