"""The tables of one-time passwords."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base


class Otp(Base):
    """A one-time password: active; verified, expired, superseded (by a later one) or locked.

    No code, number or address is in it in clear (`control.ledger.otp_vault`), so that neither a copy of the database
    nor a statement that a driver logs tells one.
    """

    __tablename__ = "otps"
    __table_args__ = (
        Index("otps_by_phone", "phone_hash", "created_at"),
        Index("otps_by_ip", "ip_hash", "created_at"),
        Index("otps_by_state", "state", "expires_at"),
        Index("otps_by_age", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    phone_hash: Mapped[str] = mapped_column(String(64))
    phone: Mapped[str | None]
    """Sealed; gone with the end of it."""
    ip_hash: Mapped[str | None] = mapped_column(String(64))
    """Of the end user's address, where the platform named it."""
    purpose: Mapped[str] = mapped_column(String(32))
    locale: Mapped[str] = mapped_column(String(16))
    code_hash: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    """Wrong codes that were tried."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    """When a provider took the message; a code can be verified before, too: its answer may have been lost."""
    provider: Mapped[str | None] = mapped_column(String(64))
    provider_id: Mapped[str | None] = mapped_column(String(128))
    """What the provider calls the message."""
    renewed_at: Mapped[datetime | None]
    """When it got another code, as the message with the first was lost with its bus."""
    ended_at: Mapped[datetime | None]
    """When its state became what it is."""
