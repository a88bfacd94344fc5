"""Media workers and what they can; how often a part's encoder could not be had"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(160), primary_key=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("usable_at", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("first_at", _TIME, nullable=False),
        sa.Column("heard_at", _TIME, nullable=False),
        sa.Column("left_at", _TIME, nullable=True),
    )
    op.create_index("ix_nodes_heard_at", "nodes", ["heard_at"])
    op.add_column("parts", sa.Column("refused", sa.Integer(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    op.drop_column("parts", "refused")
    op.drop_table("nodes")
