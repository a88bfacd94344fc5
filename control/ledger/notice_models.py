"""The tables of messages to people: mails and texts, bulk sends, addresses that take none, and sellers' addresses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import ID_LENGTH, Base

KEY_LENGTH = 200
UNFINISHED = "state IN ('pending', 'sending')"


class Notice(Base):
    """One message to one person: pending, sending; sent, failed, bounced, suppressed or cancelled."""

    __tablename__ = "notices"
    __table_args__ = (
        Index("notices_by_about", "about", "id"),
        Index("notices_by_bulk", "bulk_id", "state", "attempts", "id"),
        Index("notices_unfinished", "queued_at", sqlite_where=text(UNFINISHED), postgresql_where=text(UNFINISHED)),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    key: Mapped[str] = mapped_column(String(KEY_LENGTH), unique=True)
    """The business key: of one there is one message, however often it is asked for."""
    channel: Mapped[str] = mapped_column(String(16))
    """mail or sms"""
    task: Mapped[str] = mapped_column(String(ID_LENGTH))
    """The task that sends it."""
    template: Mapped[str] = mapped_column(String(64))
    locale: Mapped[str] = mapped_column(String(16))
    to: Mapped[str]
    about: Mapped[str] = mapped_column(String(ID_LENGTH))
    """An order's id, a stream's…: by it people ask for the message."""
    data: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    provider_id: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    problem: Mapped[str | None]
    bulk_id: Mapped[str | None] = mapped_column(ForeignKey("bulks.id"))
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    """When its message was last put into the outbox."""
    claimed_at: Mapped[datetime | None]
    claimed_by: Mapped[str | None] = mapped_column(String(KEY_LENGTH))
    """The process that sends it."""
    sent_at: Mapped[datetime | None]


class Bulk(Base):
    """One text to many: running, then done or cancelled."""

    __tablename__ = "bulks"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of what was asked for: the same id with other content is a mistake."""
    content: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    stumbles: Mapped[int] = mapped_column(default=0)
    """Chunks in a row of which nothing could be sent."""
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    """When its next chunk is, or was, due."""
    finished_at: Mapped[datetime | None]


class Pace(Base):
    """How fast a provider may be sent to in bulk: whoever has the turn, and when the next one is."""

    __tablename__ = "paces"

    provider: Mapped[str] = mapped_column(String(64), primary_key=True)
    free_at: Mapped[datetime]
    held_by: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    held_until: Mapped[datetime | None]


class Suppression(Base):
    """An address that takes no mail, by its hash: it is not sent to again."""

    __tablename__ = "suppressions"

    address_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]


class Contact(Base):
    """Where a seller is told of what concerns them."""

    __tablename__ = "contacts"

    seller_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    email: Mapped[str]
    name: Mapped[str | None]
    locale: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[datetime]
