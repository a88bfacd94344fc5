"""What of products and orders crosses the HTTP API, with examples."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Header, Path
from pydantic import BaseModel, Field, StrictBool, StringConstraints

from control.api.models import NO_NUL, Body, Identifier
from control.ledger.order_views import ORDER_ID, PRODUCT_ID, OrderView, ProductView

_LARGEST_PRICE = 10**11
_LARGEST_STOCK = 10**9
_EMAIL = r"^[^\s@<>()\[\],;:\\\x22\x00-\x1f]+@[^\s@<>()\[\],;:\\\x22\x00-\x1f]+$"
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Price = Annotated[int, Field(ge=1, le=_LARGEST_PRICE, strict=True)]
Email = Annotated[str, StringConstraints(max_length=254, pattern=_EMAIL)]
Phone = Annotated[str, StringConstraints(min_length=3, max_length=40, pattern=NO_NUL)]
ProductId = Annotated[str, Path(description="The product's id.", max_length=64, pattern=NO_NUL, examples=[PRODUCT_ID])]
OrderId = Annotated[str, Path(description="The order's id.", max_length=64, pattern=NO_NUL, examples=[ORDER_ID])]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Unlike any other, such as a UUID: the request sent again with its key is not done again, and "
        "gets the same answer, with `Idempotent-Replayed: true`.",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        examples=["5a3c2f0e-6f0b-4a53-9d5e-0b8a7c1d2e3f"],
    ),
]


class ProductCreate(Body):
    """A seller has something to sell."""

    seller_id: Identifier = Field(examples=["seller-42"])
    name: Name = Field(examples=["Tea bowl, celadon"])
    price_minor: Price = Field(description="In the currency's minor units (ISO 4217).", examples=[129900])
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field("TWD", description="ISO 4217")
    stock: int = Field(0, ge=0, le=_LARGEST_STOCK, strict=True, examples=[12])
    stream_id: Identifier | None = Field(None, description="The live stream it is sold on.")
    id: Identifier | None = Field(None, description="Your own id; one is made where it is missing.")


class ProductChange(Body):
    """What is to be different; the rest stays."""

    name: Name | None = None
    price_minor: Price | None = Field(None, description="Orders that were placed keep theirs.")
    active: StrictBool | None = Field(None, description="Whether it can be ordered.")
    stock_delta: int = Field(
        0,
        ge=-_LARGEST_STOCK,
        le=_LARGEST_STOCK,
        strict=True,
        description="So many more to be sold, or fewer. Give an Idempotency-Key with it.",
        examples=[20],
    )


class ProductPage(BaseModel):
    """One page of products, by their ids."""

    items: list[ProductView]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")


class LineCreate(Body):
    """So many of a product."""

    product_id: Identifier = Field(examples=[PRODUCT_ID])
    quantity: int = Field(1, ge=1, le=_LARGEST_STOCK, strict=True, examples=[2])


class OrderCreate(Body):
    """What a buyer wants. What it costs, the products say."""

    buyer_id: Identifier = Field(examples=["buyer-7"])
    buyer_email: Email | None = Field(
        None, description="For confirmations; without one there are none.", examples=["buyer@example.com"]
    )
    buyer_phone: Phone | None = Field(
        None,
        description="A mobile phone's number, with its country code or as it is dialled in AFTERLIVE_OTP_REGION: for "
        "text messages on how the order stands.",
        examples=["0912 345 678"],
    )
    locale: Literal["zh-TW", "en"] = "zh-TW"
    stream_id: Identifier | None = Field(None, description="Where it was sold; the products' own where it is missing.")
    lines: list[LineCreate] = Field(min_length=1, max_length=500, description="Each product once, of one seller.")


class OrderPage(BaseModel):
    """One page of orders, newest first."""

    items: list[OrderView]
    next: str | None = Field(None, description="Give it as `after` to get the next page; null on the last.")
