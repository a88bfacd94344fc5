"""Products: what sellers sell, and how much there is of it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from control.errors import Conflict, NotFound
from control.ledger import streams
from control.ledger.base import LOCK, new_id, now
from control.ledger.order_models import Product


def get(session: Session, product_id: str, *, lock: bool = False) -> Product:
    """The product as it is now; with `lock`, for this transaction alone to change. Raises NotFound."""
    found = session.get(Product, product_id, with_for_update=LOCK if lock else None, populate_existing=True)
    if found is None:
        raise NotFound(noun="product", key=product_id)
    return found


def page(
    session: Session,
    *,
    limit: int,
    after: str | None = None,
    seller_id: str | None = None,
    stream_id: str | None = None,
    active: bool | None = None,
) -> Sequence[Product]:
    """By id, those after the product `after`."""
    query = select(Product).order_by(Product.id).limit(limit)
    if after:
        query = query.where(Product.id > after)
    for column, value in ((Product.seller_id, seller_id), (Product.stream_id, stream_id), (Product.active, active)):
        if value is not None:
            query = query.where(column == value)
    return session.scalars(query).all()


def create(
    session: Session,
    *,
    seller_id: str,
    name: str,
    price_minor: int,
    currency: str,
    stock: int,
    stream_id: str | None = None,
    product_id: str | None = None,
) -> Product:
    """A new product. Creating one again, with the same id and content, gives the first as it is now; other content is
    a Conflict. Raises NotFound where there is no such stream."""
    if product_id and (known := session.get(Product, product_id, populate_existing=True)):
        if (known.seller_id, known.name, known.price_minor, known.currency) != (seller_id, name, price_minor, currency):
            raise Conflict(reason=f"There is a product {product_id} already, with other content.")
        return known
    if stream_id:
        streams.get(session, stream_id)
    at = now()
    product = Product(
        id=product_id or new_id("prd"),
        seller_id=seller_id,
        stream_id=stream_id,
        name=name,
        price_minor=price_minor,
        currency=currency,
        stock=stock,
        reserved=0,
        sold=0,
        active=True,
        created_at=at,
        updated_at=at,
    )
    try:
        with session.begin_nested():
            session.add(product)
    except IntegrityError:
        if product_id is None or session.get(Product, product_id) is None:
            raise
        # Somebody else created it at this very moment.
        return create(
            session, seller_id=seller_id, name=name, price_minor=price_minor, currency=currency, stock=stock,
            stream_id=stream_id, product_id=product_id,
        )  # fmt: skip
    return product


def change(
    session: Session,
    product_id: str,
    *,
    name: str | None = None,
    price_minor: int | None = None,
    active: bool | None = None,
    stock_delta: int = 0,
) -> Product:
    """Change what is given; orders that were placed keep their prices. Raises NotFound; Conflict where more stock is
    to be taken away than is free."""
    product = get(session, product_id, lock=True)
    changes = {"name": name, "price_minor": price_minor, "active": active}
    values = {column: value for column, value in changes.items() if value is not None}
    mine = update(Product).where(Product.id == product_id, Product.stock + stock_delta >= 0)
    changed = session.execute(mine.values(stock=Product.stock + stock_delta, updated_at=now(), **values))
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict(
            reason=f"The product {product_id} has {product.stock} left: {-stock_delta} cannot be taken away."
        )
    return get(session, product_id)
