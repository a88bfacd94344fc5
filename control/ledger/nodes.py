"""Media workers as the ledger knows them: what each can, and since when nothing was heard of it.

What they say is all there is: a node that says nothing is gone. Plans are made from this table, so that a replay whose
encoder nobody has any more is planned again rather than wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from control.bus.messages import Capability, NodeReport
from control.ledger.base import LOCK, now
from control.ledger.node_models import NAME_LENGTH, Node


def heard(session: Session, report: NodeReport, name: str | None = None) -> None:
    """The worker `name` says what it can; without a name of its own it is called like its host."""
    at = now()
    node = _locked(session, name or report.node)
    if node is None:
        node = Node(name=_fit(name or report.node), first_at=at, usable_at={})
        session.add(node)
    node.report = report.model_dump(mode="json")
    node.heard_at, node.left_at = at, None
    usable = {can.encoder: at.isoformat() for can in report.capabilities if can.usable}
    node.usable_at = {**node.usable_at, **usable}


def left(session: Session, name: str) -> None:
    """A worker says that it ends."""
    if (node := _locked(session, name)) is not None:
        node.left_at = now()


def cannot(session: Session, name: str, encoder: str, reason: str) -> None:
    """A chunk found that `encoder` cannot be had there; so it is until the node says otherwise."""
    if (node := _locked(session, name)) is None:
        return
    report = NodeReport.model_validate(node.report)
    seen = tuple(_without(can, reason) if can.encoder == encoder else can for can in report.capabilities)
    node.report = report.model_copy(update={"capabilities": seen}).model_dump(mode="json")


def alive(session: Session, lost_seconds: float) -> list[NodeReport]:
    """What those can that were heard of within `lost_seconds` and have not said that they end, by name: each report's
    `node` is the worker's name."""
    since = now() - timedelta(seconds=lost_seconds)
    query = select(Node).where(Node.heard_at >= since, Node.left_at.is_(None)).order_by(Node.name)
    found = session.scalars(query)
    return [NodeReport.model_validate(node.report).model_copy(update={"node": node.name}) for node in found]


def last_usable(session: Session, encoder: str) -> datetime | None:
    """When `encoder` was last said to be usable, by any node; None where it never was."""
    times = [node.usable_at[encoder] for node in session.scalars(select(Node)) if encoder in node.usable_at]
    return max(map(datetime.fromisoformat, times), default=None)


def known(session: Session) -> Sequence[Node]:
    """All of them, those heard of last first."""
    return session.scalars(select(Node).order_by(Node.heard_at.desc(), Node.name)).all()


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove those nothing was heard of since `before`, at most `limit`; how many."""
    old = select(Node.name).where(Node.heard_at < before).order_by(Node.heard_at).limit(limit)
    gone = session.execute(delete(Node).where(Node.name.in_(old)))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def _locked(session: Session, name: str) -> Node | None:
    return session.get(Node, _fit(name), with_for_update=LOCK, populate_existing=True)


def _without(can: Capability, reason: str) -> Capability:
    return can.model_copy(update={"usable": False, "reason": reason})


def _fit(name: str) -> str:
    return name[:NAME_LENGTH]
