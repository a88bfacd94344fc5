"""Mails and messages to people"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "bulks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stumbles", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("queued_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(200), nullable=False, unique=True),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("template", sa.String(64), nullable=False),
        sa.Column("locale", sa.String(16), nullable=False),
        sa.Column("to", sa.String(), nullable=False),
        sa.Column("about", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("provider_id", sa.String(200), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("bulk_id", sa.String(64), sa.ForeignKey("bulks.id"), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("queued_at", _TIME, nullable=False),
        sa.Column("claimed_at", _TIME, nullable=True),
        sa.Column("claimed_by", sa.String(200), nullable=True),
        sa.Column("sent_at", _TIME, nullable=True),
    )
    op.create_index("notices_by_about", "notices", ["about", "id"])
    op.create_index("notices_by_bulk", "notices", ["bulk_id", "state", "attempts", "id"])
    unfinished = sa.text("state IN ('pending', 'sending')")
    op.create_index(
        "notices_unfinished", "notices", ["queued_at"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_table(
        "paces",
        sa.Column("provider", sa.String(64), primary_key=True),
        sa.Column("free_at", _TIME, nullable=False),
        sa.Column("held_by", sa.String(64), nullable=True),
        sa.Column("held_until", _TIME, nullable=True),
    )
    op.create_table(
        "suppressions",
        sa.Column("address_hash", sa.String(64), primary_key=True),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_table(
        "contacts",
        sa.Column("seller_id", sa.String(64), primary_key=True),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("locale", sa.String(16), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )


def downgrade() -> None:
    for table in ("contacts", "suppressions", "paces", "notices", "bulks"):
        op.drop_table(table)
