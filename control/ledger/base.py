"""What all models share: typed columns, times in UTC, ids that sort by age."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import JSON, DateTime, Dialect, String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

ID_LENGTH = 64
# FOR NO KEY UPDATE: rows that refer to a locked one may still be added. SQLite has no such thing, and needs none.
LOCK: Final = {"key_share": True}


class Time(TypeDecorator[datetime]):
    """An instant, always with UTC as its zone; SQLite forgets zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (the interface's)
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  (the interface's)
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own form)
        datetime: Time,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        str: String(),
    }


def now() -> datetime:
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    """An id that is unique and sorts by the time it was made: `kind_` + milliseconds + randomness, in hex."""
    return f"{kind}_{time.time_ns() // 1_000_000:011x}{secrets.token_hex(6)}"
