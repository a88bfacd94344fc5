"""Alembic's entry: migrates the connection that `Ledger.upgrade` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from control.ledger import models as _models  # noqa: F401  (fills Base.metadata)
from control.ledger.base import Base, Time


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration must not change with the models: it names the database's own type."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Time) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=_render,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
