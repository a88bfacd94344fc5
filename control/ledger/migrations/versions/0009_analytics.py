"""What was watched and sold"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "view_events",
        sa.Column("stream_id", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("viewer_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_index("view_events_by_viewer", "view_events", ["stream_id", "viewer_id", "at"])
    op.create_index("view_events_by_time", "view_events", ["at"])
    op.create_table(
        "sales",
        sa.Column("order_id", sa.String(64), primary_key=True),
        sa.Column("stream_id", sa.String(64), nullable=True),
        sa.Column("seller_id", sa.String(64), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_index("sales_by_stream", "sales", ["stream_id", "at"])
    op.create_index("sales_by_time", "sales", ["at"])
    op.create_table(
        "sale_refunds",
        sa.Column("order_id", sa.String(64), primary_key=True),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_index("ix_sale_refunds_at", "sale_refunds", ["at"])
    op.create_table(
        "stream_analytics",
        sa.Column("stream_id", sa.String(64), primary_key=True),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("computed_at", _TIME, nullable=True),
        sa.Column("scheduled_at", _TIME, nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("sealed_at", _TIME, nullable=True),
    )
    op.create_table(
        "daily_reports",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("zone", sa.String(64), primary_key=True),
        sa.Column("seller_id", sa.String(64), primary_key=True),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("csv_key", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )


def downgrade() -> None:
    for table in ("daily_reports", "stream_analytics", "sale_refunds", "sales", "view_events"):
        op.drop_table(table)
