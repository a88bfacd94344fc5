"""Products and orders as others see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from control.ledger import orders
from control.ledger.order_models import Order, OrderLine

OrderState = Literal["placed", "reserved", "sold_out", "paid", "confirmed", "cancelled", "expired", "refunded"]
PRODUCT_ID, ORDER_ID = "prd_019a3b5c7d8f2a4b", "ord_019a3b5c7d8f2a4b"


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ProductView(_View):
    """Something a seller sells."""

    id: str = Field(examples=[PRODUCT_ID])
    seller_id: str = Field(examples=["seller-42"])
    stream_id: str | None = Field(description="The live stream it is sold on.")
    name: str = Field(examples=["Tea bowl, celadon"])
    price_minor: int = Field(description="In the currency's minor units.", examples=[129900])
    currency: str = Field(description="ISO 4217", examples=["TWD"])
    stock: int = Field(description="Free to be sold.", examples=[12])
    reserved: int = Field(description="Kept for orders that are not paid yet.", examples=[2])
    sold: int = Field(examples=[30])
    active: bool = Field(description="Whether it can be ordered.")
    created_at: datetime
    updated_at: datetime


class LineView(_View):
    """So many of a product, at the price it had when they were ordered."""

    product_id: str = Field(examples=[PRODUCT_ID])
    name: str = Field(examples=["Tea bowl, celadon"])
    quantity: int = Field(examples=[2])
    unit_price_minor: int = Field(examples=[129900])


class OrderView(_View):
    """An order. How its buyer is reached, only `GET /orders/{id}` tells."""

    id: str = Field(examples=[ORDER_ID])
    state: OrderState
    buyer_id: str = Field(examples=["buyer-7"])
    seller_id: str = Field(examples=["seller-42"])
    stream_id: str | None
    locale: str = Field(examples=["zh-TW"])
    lines: list[LineView]
    total_minor: int = Field(description="In the currency's minor units.", examples=[259800])
    currency: str = Field(examples=["TWD"])
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = Field(description="Until when its stock is kept for it, if it is not paid.")
    paid_at: datetime | None
    problem: str | None = Field(description="`sold-out`, or `paid-too-late`: money came for it that goes back.")


class ChangeView(_View):
    """It came into a state."""

    state: OrderState
    state_before: OrderState | None
    at: datetime
    note: str | None


class OrderDetails(OrderView):
    """An order with all there is to know of it."""

    buyer_email: str | None = Field(examples=["buyer@example.com"])
    buyer_phone: str | None = Field(description="E.164", examples=["+886912345678"])
    history: list[ChangeView]


def of(order: Order, lines: Sequence[OrderLine]) -> OrderView:
    return OrderView.model_validate(_columns(OrderView, order) | {"lines": list(lines)})


def of_all(session: Session, found: Sequence[Order]) -> list[OrderView]:
    """Of several, with their lines."""
    query = select(OrderLine).where(OrderLine.order_id.in_([order.id for order in found]))
    lines: defaultdict[str, list[OrderLine]] = defaultdict(list)
    for line in session.scalars(query.order_by(OrderLine.order_id, OrderLine.number)):
        lines[line.order_id].append(line)
    return [of(order, lines[order.id]) for order in found]


def details(session: Session, order_id: str) -> OrderDetails:
    """Raises NotFound."""
    order = orders.get(session, order_id)
    more = {"lines": list(orders.lines(session, order_id)), "history": list(orders.history(session, order_id))}
    return OrderDetails.model_validate(_columns(OrderDetails, order) | more)


def _columns(view: type[OrderView], order: Order) -> dict[str, object]:
    return {name: getattr(order, name) for name in view.model_fields if name not in ("lines", "history")}
