"""Payments and the gateway's notices"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_PAID = sa.text("state = 'paid'")


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("order_id", sa.String(64), sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("gateway", sa.String(16), nullable=False),
        sa.Column("merchant_id", sa.String(32), nullable=False),
        sa.Column("trade_no", sa.String(20), nullable=False, unique=True),
        sa.Column("gateway_trade_no", sa.String(32), nullable=True),
        sa.Column("method", sa.String(32), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("problem", sa.String(64), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("refund_reason", sa.String(16), nullable=True),
        sa.Column("refund_tries", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("waits_from", _TIME, nullable=False),
        sa.Column("paid_at", _TIME, nullable=True),
        sa.Column("refunded_at", _TIME, nullable=True),
    )
    op.create_index("payments_by_order", "payments", ["order_id", "created_at"])
    op.create_index("payments_by_state", "payments", ["state", "waits_from"])
    op.create_index(
        "payments_paid_once", "payments", ["order_id"], unique=True, sqlite_where=_PAID, postgresql_where=_PAID
    )
    op.create_table(
        "payment_notices",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("gateway", sa.String(16), nullable=False),
        sa.Column("trade_no", sa.String(20), nullable=False),
        sa.Column("fields", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("processed_at", _TIME, nullable=True),
        sa.Column("outcome", sa.String(32), nullable=True),
    )
    op.create_index("payment_notices_unread", "payment_notices", ["processed_at", "received_at"])
    op.create_index("ix_payment_notices_trade_no", "payment_notices", ["trade_no"])


def downgrade() -> None:
    op.drop_table("payment_notices")
    op.drop_table("payments")
