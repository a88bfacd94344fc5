"""The tables of what was watched and sold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base


class ViewEvent(Base):
    """A viewer came, is still there, or went, as the viewer's own clock has it. Never changed.

    Nothing here refers to a stream's row: there are many of these, and what they were counted to outlives them.
    """

    __tablename__ = "view_events"
    # By viewer, then time: so they are read, and need not be sorted.
    __table_args__ = (
        Index("view_events_by_viewer", "stream_id", "viewer_id", "at"),
        Index("view_events_by_time", "at"),
    )

    stream_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    """The client's own: one that is sent again is the same."""
    viewer_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    kind: Mapped[str] = mapped_column(String(16))
    """join, heartbeat or leave"""
    at: Mapped[datetime]


class Sale(Base):
    """An order that was paid. Never changed."""

    __tablename__ = "sales"
    __table_args__ = (Index("sales_by_stream", "stream_id", "at"), Index("sales_by_time", "at"))

    order_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    stream_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    seller_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    items: Mapped[int]
    at: Mapped[datetime]


class SaleRefund(Base):
    """An order whose money went back; known before its sale or after. Never changed."""

    __tablename__ = "sale_refunds"

    order_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)


class StreamAnalytics(Base):
    """What a stream's events come to, and whether they were all counted."""

    __tablename__ = "stream_analytics"

    stream_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    changes: Mapped[int] = mapped_column(default=0)
    """Grows with each transaction that brings something new."""
    counted: Mapped[int] = mapped_column(default=0)
    """What `changes` was when `data` was counted."""
    data: Mapped[dict[str, Any] | None]
    computed_at: Mapped[datetime | None]
    scheduled_at: Mapped[datetime | None]
    """A message is on its way to have it counted; what comes before it is read, it counts too."""
    started_at: Mapped[datetime | None]
    sealed_at: Mapped[datetime | None]
    """Who watched was counted for good: the events themselves are gone, and no more are taken."""


class DailyReport(Base):
    """What was sold and watched on one day of a time zone, by one seller or (seller_id is empty) by all."""

    __tablename__ = "daily_reports"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    """YYYY-MM-DD"""
    zone: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    """Name of the IANA data base."""
    seller_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    data: Mapped[dict[str, Any]]
    csv_key: Mapped[str]
    created_at: Mapped[datetime]
    """When it was last made."""
