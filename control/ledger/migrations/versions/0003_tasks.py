"""Tasks and how they ended, failures to review, and the clock"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("outbox", sa.Column("task_id", sa.String(64), nullable=True))
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("queue", sa.String(32), nullable=False),
        sa.Column("key", sa.String(64), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
    )
    op.create_index("tasks_by_key", "tasks", ["key", "created_at"])
    op.create_index("tasks_by_age", "tasks", ["finished_at"])
    op.create_table(
        "failed_tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("origin", sa.String(160), nullable=False, unique=True),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("task", sa.String(128), nullable=False),
        sa.Column("queue", sa.String(128), nullable=False),
        sa.Column("key", sa.String(64), nullable=True),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("exception", sa.String(160), nullable=True),
        sa.Column("traceback", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("published_at", _TIME, nullable=True),
        sa.Column("failed_at", _TIME, nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("replayed_as", sa.String(64), nullable=True),
        sa.Column("notified_at", _TIME, nullable=True),
    )
    op.create_index("failed_tasks_by_state", "failed_tasks", ["state", "id"])
    for column in ("task_id", "task", "key", "reason"):
        op.create_index(f"ix_failed_tasks_{column}", "failed_tasks", [column])
    op.create_table(
        "failed_task_actions",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("failed_id", sa.String(64), sa.ForeignKey("failed_tasks.id"), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(160), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_index("ix_failed_task_actions_failed_id", "failed_task_actions", ["failed_id"])
    op.create_table(
        "schedule",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("last_run_at", _TIME, nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    for table in ("schedule", "failed_task_actions", "failed_tasks", "tasks"):
        op.drop_table(table)
    op.drop_column("outbox", "task_id")
