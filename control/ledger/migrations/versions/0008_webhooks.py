"""Webhooks to other systems"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.String(64)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", ID, primary_key=True),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("seller_id", ID),
        sa.Column("description", sa.String()),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.String()),
        sa.Column("previous_until", TIME),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("disabled_reason", sa.String()),
        sa.Column("failing_since", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_index("webhook_endpoints_by_seller", "webhook_endpoints", ["state", "seller_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, primary_key=True),
        sa.Column("endpoint_id", ID, sa.ForeignKey("webhook_endpoints.id"), nullable=False),
        sa.Column("event_id", ID, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("about", ID, nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_before", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("waits_for_turn", sa.Boolean(), nullable=False),
        sa.Column("claimed_until", TIME),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_problem", sa.String()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("delivered_at", TIME),
        sa.UniqueConstraint("endpoint_id", "event_id", name="webhook_deliveries_once"),
    )
    op.create_index("webhook_deliveries_by_state", "webhook_deliveries", ["endpoint_id", "state", "id"])
    op.create_index("webhook_deliveries_by_claim", "webhook_deliveries", ["endpoint_id", "claimed_until"])
    op.create_index("webhook_deliveries_by_time", "webhook_deliveries", ["state", "next_at"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")
