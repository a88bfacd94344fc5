"""Idempotency keys, as Stripe has them (docs.stripe.com/api/idempotent_requests): a request that comes again with its
key gets the first one's answer, and is not done again. What is refused leaves nothing behind: its key is still free.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from control.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from control.ledger.base import insert_into, now
from control.ledger.order_models import IdempotencyKey


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that is kept."""

    status: int
    body: str
    location: str | None = None
    replayed: bool = False


def fingerprint(operation: str, body: str) -> str:
    """Tells one request from another."""
    return hashlib.sha256(f"{operation}\n{body}".encode()).hexdigest()


def known(session: Session, keys: Iterable[str]) -> dict[str, IdempotencyKey]:
    """Those of the keys that were used."""
    wanted = sorted(keys)
    if not wanted:
        return {}
    query = select(IdempotencyKey).where(IdempotencyKey.key.in_(wanted))
    return {row.key: row for row in session.scalars(query.execution_options(populate_existing=True))}


def again(row: IdempotencyKey, asked: str) -> Answer:
    """The answer to the request `asked` (its fingerprint), which came with a key that was used. Raises
    IdempotencyKeyReused where it was used for another."""
    if row.fingerprint != asked:
        raise IdempotencyKeyReused
    return Answer(row.status, row.body, row.location, replayed=True)


def keep(session: Session, answers: Sequence[tuple[str, str, Answer]]) -> set[str]:
    """Keep answers (key, fingerprint, answer); the keys that nobody used before. Where another transaction is using
    one of them, its end is waited for."""
    if not answers:
        return set()
    at = now()
    # In one order, whoever inserts several: so none wait for each other.
    rows = [
        {
            "key": key,
            "fingerprint": asked,
            "status": answer.status,
            "location": answer.location,
            "body": answer.body,
            "created_at": at,
        }
        for key, asked, answer in sorted(answers, key=lambda one: one[0])
    ]
    statement = insert_into(session, IdempotencyKey).values(rows)
    added = session.scalars(statement.on_conflict_do_nothing(index_elements=["key"]).returning(IdempotencyKey.key))
    return set(added.all())


def once(session: Session, key: str | None, asked: str, act: Callable[[], Answer]) -> Answer:
    """`act`, where the key is new, or there is none; else the answer it gave. Raises IdempotencyKeyReused."""
    if key is None:
        return act()
    if not keep(session, [(key, asked, Answer(0, ""))]):
        return again(known(session, [key])[key], asked)
    answer = act()
    values = {"status": answer.status, "body": answer.body, "location": answer.location}
    session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key).values(values))
    return replace(answer, replayed=False)


def forget(session: Session, before: datetime) -> None:
    """Remove keys that were used before that."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < before))


class InProgress:
    """Keys of requests that this process works on."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, key: str | None) -> None:
        """Raises IdempotencyKeyInUse where a request with the key is being worked on."""
        if key is None:
            return
        with self._lock:
            if key in self._keys:
                raise IdempotencyKeyInUse(retry_after_seconds=1)
            self._keys.add(key)

    def end(self, key: str | None) -> None:
        with self._lock:
            self._keys.discard(key or "")

    @contextmanager
    def holding(self, key: str | None) -> Iterator[None]:
        self.begin(key)
        try:
            yield
        finally:
            self.end(key)
