"""One-time passwords"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "otps",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("phone_hash", sa.String(64), nullable=False),
        sa.Column("phone", sa.String(), nullable=True),
        sa.Column("ip_hash", sa.String(64), nullable=True),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("locale", sa.String(16), nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("sent_at", _TIME, nullable=True),
        sa.Column("provider", sa.String(64), nullable=True),
        sa.Column("provider_id", sa.String(128), nullable=True),
        sa.Column("renewed_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
    )
    op.create_index("otps_by_phone", "otps", ["phone_hash", "created_at"])
    op.create_index("otps_by_ip", "otps", ["ip_hash", "created_at"])
    op.create_index("otps_by_state", "otps", ["state", "expires_at"])
    op.create_index("otps_by_age", "otps", ["created_at"])


def downgrade() -> None:
    op.drop_table("otps")
