"""What happened to a stream, in order."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from control.ledger import commits
from control.ledger.base import now
from control.ledger.models import EventRow


def record(session: Session, stream_id: str, name: str, **data: Any) -> None:
    """Append an event; `data` is JSON."""
    commits.announce(session)
    session.add(EventRow(stream_id=stream_id, name=name, at=now(), data=data))
