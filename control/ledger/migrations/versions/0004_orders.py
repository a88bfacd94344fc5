"""Products, orders and their stock"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_RESERVED = sa.text("state = 'reserved'")
_WAITING = sa.text("waits_since IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("seller_id", sa.String(64), nullable=False),
        sa.Column("stream_id", sa.String(64), sa.ForeignKey("streams.id"), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("stock", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("sold", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.CheckConstraint("stock >= 0", name="products_stock"),
        sa.CheckConstraint("reserved >= 0", name="products_reserved"),
        sa.CheckConstraint("sold >= 0", name="products_sold"),
    )
    op.create_index("products_by_seller", "products", ["seller_id", "id"])
    op.create_index("products_by_stream", "products", ["stream_id", "id"])
    op.create_table(
        "orders",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("buyer_id", sa.String(64), nullable=False),
        sa.Column("buyer_email", sa.String(), nullable=True),
        sa.Column("buyer_phone", sa.String(16), nullable=True),
        sa.Column("locale", sa.String(16), nullable=False),
        sa.Column("seller_id", sa.String(64), nullable=False),
        sa.Column("stream_id", sa.String(64), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("paid_at", _TIME, nullable=True),
        sa.Column("reminded_at", _TIME, nullable=True),
        sa.Column("waits_since", _TIME, nullable=True),
        sa.Column("problem", sa.String(64), nullable=True),
    )
    for name, columns in (("buyer", "buyer_id"), ("seller", "seller_id"), ("state", "state")):
        op.create_index(f"orders_by_{name}", "orders", [columns, "id"])
    op.create_index("orders_expiring", "orders", ["expires_at"], sqlite_where=_RESERVED, postgresql_where=_RESERVED)
    op.create_index("orders_waiting", "orders", ["waits_since"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    op.create_table(
        "order_lines",
        sa.Column("order_id", sa.String(64), sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("product_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("holds", sa.String(16), nullable=False),
        sa.CheckConstraint("quantity > 0", name="order_lines_quantity"),
    )
    op.create_index("ix_order_lines_product_id", "order_lines", ["product_id"])
    op.create_table(
        "order_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("order_id", sa.String(64), sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("state_before", sa.String(16), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("note", sa.String(), nullable=True),
    )
    op.create_index("order_changes_by_order", "order_changes", ["order_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    for table in ("idempotency_keys", "order_changes", "order_lines", "orders", "products"):
        op.drop_table(table)
