"""What a stream's and a day's events come to: the documents the ledger keeps, and the API shows."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class CurrencyTotal(BaseModel):
    """What was sold in one currency, in its minor units (ISO 4217)."""

    currency: str = Field(examples=["TWD"])
    orders: int = 0
    items: int = 0
    revenue_minor: int = Field(0, description="What was paid, whatever went back later")
    refunds: int = 0
    refunded_minor: int = 0

    @property
    def net_minor(self) -> int:
        return self.revenue_minor - self.refunded_minor


class Peak(BaseModel):
    """When most watched at the same time; the first such moment."""

    viewers: int
    minute: int = Field(description="Of the stream, from 0")
    at: datetime


class Minute(BaseModel):
    """One minute of a stream in which anything happened."""

    minute: int = Field(description="From 0: the first sixty seconds")
    viewers: int = Field(0, description="The most that watched at the same time")
    orders: int = 0
    revenue_minor: dict[str, int] = Field(default_factory=dict, description="By currency")


class Moment(BaseModel):
    """The sixty seconds in which most was taken, in one currency; the first such."""

    currency: str
    offset_seconds: float = Field(description="From the stream's begin to the first order of it")
    at: datetime
    orders: int
    revenue_minor: int


class Viewing(BaseModel):
    """Who watched a stream, and for how long."""

    events: int = 0
    viewers: int = 0
    watch_seconds: float = 0.0
    peak: Peak | None = None


class StreamFigures(Viewing):
    """A stream, watched and sold from. Minutes and offsets count from its begin; what was bought after its end is in
    the totals alone."""

    begin: datetime
    end: datetime | None = Field(description="null while it is live")
    orders: int = 0
    buyers: int = 0
    conversion: float | None = Field(None, description="Buyers by viewers; null where nobody watched")
    totals: list[CurrencyTotal] = Field(default_factory=list)
    best_moments: list[Moment] = Field(default_factory=list, description="One a currency")
    minutes: list[Minute] = Field(default_factory=list)


class Hour(BaseModel):
    """One hour of a day. A day has 23 of them, or 25, where clocks change."""

    label: str = Field(examples=["20:00"])
    orders: int = 0
    revenue_minor: dict[str, int] = Field(default_factory=dict, description="By currency")


class ProductSold(BaseModel):
    """What was sold of one product."""

    product_id: str
    name: str
    currency: str
    quantity: int
    revenue_minor: int


class StreamWatched(BaseModel):
    """A stream that ran on the day."""

    stream_id: str
    title: str
    viewers: int
    orders: int


class DayFigures(BaseModel):
    """One day of one seller, or of all."""

    day: str = Field(examples=["2026-11-24"])
    zone: str = Field(examples=["Asia/Taipei"])
    seller_id: str | None = None
    begin: datetime
    end: datetime
    orders: int = 0
    totals: list[CurrencyTotal] = Field(
        default_factory=list, description="Revenue of the day's orders; refunds that were made on the day"
    )
    streams: int = 0
    viewers: int = 0
    watch_seconds: float = 0.0
    failed_payments: int = 0
    hours: list[Hour] = Field(default_factory=list)
    top_products: list[ProductSold] = Field(default_factory=list)
    top_streams: list[StreamWatched] = Field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened at all."""
        return not (self.totals or self.streams or self.viewers or self.failed_payments)
