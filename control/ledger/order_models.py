"""The tables of shopping: products, orders, and what became of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base

_RESERVED = text("state = 'reserved'")
_WAITING = text("waits_since IS NOT NULL")


class Product(Base):
    """Something a seller sells. It is never removed: one that is not sold any more is not `active`."""

    __tablename__ = "products"
    # Whatever else goes wrong, nobody is sold what is not there.
    __table_args__ = (
        CheckConstraint("stock >= 0", name="products_stock"),
        CheckConstraint("reserved >= 0", name="products_reserved"),
        CheckConstraint("sold >= 0", name="products_sold"),
        Index("products_by_seller", "seller_id", "id"),
        Index("products_by_stream", "stream_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    seller_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    stream_id: Mapped[str | None] = mapped_column(ForeignKey("streams.id"))
    """The live stream it is sold on."""
    name: Mapped[str]
    price_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    stock: Mapped[int] = mapped_column(BigInteger)
    """Free to be sold. With `reserved` and `sold` it is all there ever was."""
    reserved: Mapped[int] = mapped_column(BigInteger, default=0)
    sold: Mapped[int] = mapped_column(BigInteger, default=0)
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    """When a person last changed it."""


class Order(Base):
    """What a buyer wants: placed; reserved or sold_out; paid, confirmed, refunded; cancelled or expired."""

    __tablename__ = "orders"
    __table_args__ = (
        Index("orders_by_buyer", "buyer_id", "id"),
        Index("orders_by_seller", "seller_id", "id"),
        Index("orders_by_state", "state", "id"),
        Index("orders_expiring", "expires_at", sqlite_where=_RESERVED, postgresql_where=_RESERVED),
        Index("orders_waiting", "waits_since", sqlite_where=_WAITING, postgresql_where=_WAITING),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    buyer_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    buyer_email: Mapped[str | None]
    buyer_phone: Mapped[str | None] = mapped_column(String(16))
    """E.164"""
    locale: Mapped[str] = mapped_column(String(16))
    seller_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    stream_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    """Of its products, where all have the same. No row is locked for it: many order on one stream at a time."""
    state: Mapped[str] = mapped_column(String(16))
    total_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """Until when its stock is kept for it, if it is not paid."""
    paid_at: Mapped[datetime | None]
    reminded_at: Mapped[datetime | None]
    waits_since: Mapped[datetime | None]
    """When the task that brings it forward was last sent; None where there is nothing to do."""
    problem: Mapped[str | None] = mapped_column(String(64))
    """What a person may want to know of it: sold-out, paid-too-late."""


class OrderLine(Base):
    """So many of a product, at the price it had when they were ordered."""

    __tablename__ = "order_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="order_lines_quantity"),)

    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    # Not a foreign key: each line that is stored would lock the row that all of a flash sale want to change.
    product_id: Mapped[str] = mapped_column(String(ID_LENGTH), index=True)
    name: Mapped[str]
    quantity: Mapped[int]
    unit_price_minor: Mapped[int] = mapped_column(BigInteger)
    holds: Mapped[str] = mapped_column(String(16), default="nothing")
    """Where its quantity is in the product's figures: nothing (in `stock`), reserved or sold."""


class OrderChange(Base):
    """An order came into a state. Never changed."""

    __tablename__ = "order_changes"
    __table_args__ = (Index("order_changes_by_order", "order_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    state_before: Mapped[str | None] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    note: Mapped[str | None]


class IdempotencyKey(Base):
    """A request that must not be done twice, and what it was answered."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Hash of what was asked: the same key with another request is a mistake."""
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[str]
    """The answer, to the byte. It holds nothing of the buyer."""
    created_at: Mapped[datetime] = mapped_column(index=True)
