"""The table of media workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from control.ledger.base import Base

NAME_LENGTH = 160


class Node(Base):
    """A media worker, by what it last said of itself."""

    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    report: Mapped[dict[str, Any]]
    """control.bus.messages.NodeReport"""
    usable_at: Mapped[dict[str, Any]]
    """Encoder → when it was last said to be usable there (ISO 8601), whatever was said since."""
    first_at: Mapped[datetime]
    heard_at: Mapped[datetime] = mapped_column(index=True)
    left_at: Mapped[datetime | None]
    """When it said that it ends."""
