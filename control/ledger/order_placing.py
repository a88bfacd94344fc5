"""Orders are placed: many at the same time in one transaction (`control.ledger.group`), in as few statements as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import Row, Table, insert, select
from sqlalchemy.orm import Session

from control.errors import (
    AfterliveError,
    IdempotencyKeyInUse,
    OrderMixed,
    OrderRefused,
    ProductInactive,
    ProductUnknown,
)
from control.ledger import idempotency, late, order_views, orders
from control.ledger.base import new_id, now, row_of
from control.ledger.idempotency import Answer
from control.ledger.models import Stream
from control.ledger.order_models import Order, OrderLine, Product

_CREATED: Final = 201
_ORDERS: Final = insert(cast(Table, Order.__table__))
_LINES: Final = insert(cast(Table, OrderLine.__table__))
_PRODUCTS: Final = cast(Table, Product.__table__)


@dataclass(frozen=True)
class Wanted:
    """So many of a product."""

    product_id: str
    quantity: int


@dataclass(frozen=True)
class Placement:
    """What a buyer asks for. `key` is the request's Idempotency-Key, `fingerprint` tells it from others."""

    buyer_id: str
    lines: tuple[Wanted, ...]
    buyer_email: str | None = field(default=None, repr=False)
    buyer_phone: str | None = field(default=None, repr=False)
    locale: str = "zh-TW"
    stream_id: str | None = None
    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class _Made:
    order: Order
    lines: list[OrderLine]
    answer: Answer


def place_all(session: Session, placements: Sequence[Placement]) -> list[Answer | AfterliveError]:
    """For each its order, as it is answered, or its error: ProductUnknown, ProductInactive, OrderMixed, OrderRefused;
    IdempotencyKeyReused, IdempotencyKeyInUse. The order is `placed`; whether there is stock for it, is decided by
    `notify.process_order`."""
    found: list[Answer | AfterliveError | None] = [_known(session, placements).get(i) for i in range(len(placements))]
    open_ = [i for i, answer in enumerate(found) if answer is None]
    products = _products(session, [placements[i] for i in open_])
    streams = _streams(session, [placements[i] for i in open_])
    made: dict[int, _Made] = {}
    for i in open_:
        try:
            made[i] = _make(placements[i], products, streams)
        except AfterliveError as error:
            found[i] = error
    keyed = {key: i for i in made if (key := placements[i].key)}
    kept = idempotency.keep(session, [(key, placements[i].fingerprint, made[i].answer) for key, i in keyed.items()])
    for i, lost in _overtaken(session, placements, {key: i for key, i in keyed.items() if key not in kept}).items():
        found[i] = lost
        del made[i]
    _store(session, list(made.values()))
    return [one if one is not None else made[i].answer for i, one in enumerate(found)]


def place(session: Session, placement: Placement) -> Answer:
    """As `place_all`, of one. Raises its error."""
    (found,) = place_all(session, [placement])
    if isinstance(found, AfterliveError):
        raise found
    return found


def _known(session: Session, placements: Sequence[Placement]) -> dict[int, Answer | AfterliveError]:
    """The answers to those that came before, or come twice in this very group."""
    rows = idempotency.known(session, {key for one in placements if (key := one.key)})
    answers: dict[int, Answer | AfterliveError] = {}
    seen: set[str] = set()
    for i, one in enumerate(placements):
        if one.key is None:
            continue
        if one.key in rows:
            answers[i] = _again(rows, one)
        elif one.key in seen:
            answers[i] = IdempotencyKeyInUse(retry_after_seconds=1)
        seen.add(one.key)
    return answers


def _overtaken(
    session: Session, placements: Sequence[Placement], keys: Mapping[str, int]
) -> dict[int, Answer | AfterliveError]:
    """Another process has used these keys since."""
    rows = idempotency.known(session, keys)
    return {i: _again(rows, placements[i]) for i in keys.values()}


def _again(rows: Mapping[str, Any], one: Placement) -> Answer | AfterliveError:
    try:
        return idempotency.again(rows[one.key or ""], one.fingerprint)
    except AfterliveError as error:
        return error


def _products(session: Session, placements: Sequence[Placement]) -> dict[str, Row[Any]]:
    ids = sorted({line.product_id for one in placements for line in one.lines})
    if not ids:
        return {}
    found = session.connection().execute(select(_PRODUCTS).where(_PRODUCTS.c.id.in_(ids)))
    return {product.id: product for product in found}


def _streams(session: Session, placements: Sequence[Placement]) -> set[str]:
    ids = sorted({one.stream_id for one in placements if one.stream_id})
    return set(session.scalars(select(Stream.id).where(Stream.id.in_(ids)))) if ids else set()


def _make(one: Placement, products: Mapping[str, Row[Any]], streams: set[str]) -> _Made:
    chosen = [(_for_sale(products, line.product_id), line.quantity) for line in one.lines]
    if not chosen:
        raise OrderRefused(reason="there is nothing in it")
    for what, values in (
        ("seller", {product.seller_id for product, _ in chosen}),
        ("currency", {product.currency for product, _ in chosen}),
    ):
        if len(values) > 1:
            raise OrderMixed(what=what)
    if one.stream_id and one.stream_id not in streams:
        raise OrderRefused(reason=f"there is no stream {one.stream_id}")
    sold_on = {product.stream_id for product, _ in chosen}
    at, order_id = now(), new_id("ord")
    order = Order(
        id=order_id,
        buyer_id=one.buyer_id,
        buyer_email=one.buyer_email,
        buyer_phone=one.buyer_phone,
        locale=one.locale,
        seller_id=chosen[0][0].seller_id,
        stream_id=one.stream_id or (sold_on.pop() if len(sold_on) == 1 else None),
        state="placed",
        total_minor=sum(product.price_minor * quantity for product, quantity in chosen),
        currency=chosen[0][0].currency,
        created_at=at,
        updated_at=at,
        waits_since=at,
    )
    lines = [
        OrderLine(
            order_id=order_id,
            number=number,
            product_id=product.id,
            name=product.name,
            quantity=quantity,
            unit_price_minor=product.price_minor,
            holds="nothing",
        )
        for number, (product, quantity) in enumerate(chosen, 1)
    ]
    body = order_views.of(order, lines).model_dump_json()
    return _Made(order, lines, Answer(_CREATED, body, f"/orders/{order_id}"))


def _for_sale(products: Mapping[str, Row[Any]], product_id: str) -> Row[Any]:
    product = products.get(product_id)
    if product is None:
        raise ProductUnknown(product_id=product_id)
    if not product.active:
        raise ProductInactive(product_id=product_id)
    return product


def _store(session: Session, made: Sequence[_Made]) -> None:
    for one in made:
        late.insert(session, _ORDERS, row_of(one.order))
        for line in one.lines:
            late.insert(session, _LINES, row_of(line))
        change = {"order_id": one.order.id, "state_before": None, "state": "placed", "at": one.order.created_at}
        late.insert(session, orders.CHANGES, change | {"note": None})
        orders.send_next(session, one.order)
