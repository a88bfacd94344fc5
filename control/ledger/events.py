"""What happened to a stream, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from control.ledger import commits, outbox
from control.ledger.base import now
from control.ledger.models import EventRow


def record(session: Session, stream_id: str, name: str, **data: Any) -> None:
    """Append an event; `data` is JSON. Whoever has bound a queue to the events exchange gets it as well."""
    record_all(session, [(stream_id, name, data)])


def record_all(session: Session, happened: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """As `record`, of several: stream, name and data of each."""
    commits.announce(session)
    rows = [EventRow(stream_id=stream_id, name=name, at=now(), data=data) for stream_id, name, data in happened]
    session.add_all(rows)
    session.flush()
    for row in rows:
        told = {"id": row.id, "event": row.name, "at": row.at.isoformat(), "stream_id": row.stream_id, "data": row.data}
        outbox.announce(session, row.name, told)
