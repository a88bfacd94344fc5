"""What all models share: typed columns, times in UTC, ids that sort by age."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import JSON, DateTime, Dialect, String, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session
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


def row_of(entity: Base) -> dict[str, Any]:
    """Its columns by name, for an insert past the ORM."""
    return {column.key: getattr(entity, column.key) for column in entity.__table__.columns}


def insert_into(session: Session, model: type[Base]) -> Any:
    """An insert of the session's dialect: what it does about a row that is there can be said."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return insert(cast(Table, model.__table__))


def insert_new(model: type[Base], unique: str, *returning: str) -> dict[str, Any]:
    """By dialect: the insert that leaves what is there alone, by its column `unique`, and returns those columns of what
    is new."""
    table = cast(Table, model.__table__)
    return {
        dialect: made(table)
        .on_conflict_do_nothing(index_elements=[unique])
        .returning(*(table.c[name] for name in returning))
        for dialect, made in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
    }


def now() -> datetime:
    return datetime.now(UTC)


class _Ids:
    """Milliseconds, then 48 random bits; within one millisecond each is a random step above the one before, as ULID has
    it (https://github.com/ulid/spec#monotonicity), so that lists keep the order things were made in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._random = 0

    def next(self) -> str:
        with self._lock:
            millisecond = time.time_ns() // 1_000_000
            if millisecond > self._millisecond:
                self._millisecond, self._random = millisecond, secrets.randbits(47)
            else:  # or a clock that was set back
                self._random += 1 + secrets.randbits(24)
                if self._random >= 1 << 48:
                    self._millisecond, self._random = self._millisecond + 1, secrets.randbits(47)
            return f"{self._millisecond:011x}{self._random:012x}"


_ids: Final = _Ids()


def new_id(kind: str) -> str:
    """An id that is unique and sorts by the time it was made, in this process strictly: `kind_` and 23 hex digits."""
    return f"{kind}_{_ids.next()}"
