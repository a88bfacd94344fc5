"""The tables of payments and of the gateways' notices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base

_PAID = text("state = 'paid'")


class Payment(Base):
    """One try to have an order paid: created, pending; paid, failed or expired; refunding, refunded; review."""

    __tablename__ = "payments"
    __table_args__ = (
        Index("payments_by_order", "order_id", "created_at"),
        Index("payments_by_state", "state", "waits_from"),
        # Whatever else goes wrong, an order is not paid by two.
        Index("payments_paid_once", "order_id", unique=True, sqlite_where=_PAID, postgresql_where=_PAID),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    gateway: Mapped[str] = mapped_column(String(16))
    merchant_id: Mapped[str] = mapped_column(String(32))
    trade_no: Mapped[str] = mapped_column(String(20), unique=True)
    """Our number of it at the gateway."""
    gateway_trade_no: Mapped[str | None] = mapped_column(String(32))
    """The gateway's own."""
    method: Mapped[str | None] = mapped_column(String(32))
    """How it was paid, in the gateway's words."""
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[str] = mapped_column(String(16))
    problem: Mapped[str | None] = mapped_column(String(64))
    """Why it failed, or has to be looked at."""
    simulated: Mapped[bool] = mapped_column(default=False)
    """The gateway told of a trial of it."""
    refund_reason: Mapped[str | None] = mapped_column(String(16))
    """requested, too-late or paid-twice"""
    refund_tries: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    waits_from: Mapped[datetime]
    """Since when nothing is heard of it. With each answer that decides nothing it is set farther ahead."""
    paid_at: Mapped[datetime | None]
    refunded_at: Mapped[datetime | None]


class PaymentNotice(Base):
    """What a gateway told, as it came. Stored once, then read once."""

    __tablename__ = "payment_notices"
    __table_args__ = (Index("payment_notices_unread", "processed_at", "received_at"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    """Of what it says: a copy of it has the same."""
    gateway: Mapped[str] = mapped_column(String(16))
    trade_no: Mapped[str] = mapped_column(String(20), index=True)
    fields: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    """What became of it (control.ledger.payments.hear)."""
