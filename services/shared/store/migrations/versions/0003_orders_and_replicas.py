"""Who has to carry out an order, and indexes for what forgetting asks: orders that wait, comparisons by what they say.

Both indexes hold few rows. The second takes one pass over `feedback` to make.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.shared.store.columns import ExactText, UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "replicas",
        sa.Column("replica_id", ExactText(), nullable=False),
        sa.Column(
            "seen_time", UtcTime(), nullable=False, comment="when it last asked the learner for something, roughly"
        ),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    unpublished = sa.text("publish_time IS NULL")
    op.create_index(
        "ix_controls_unpublished",
        "controls",
        ["commit_time", "control_id"],
        sqlite_where=unpublished,
        postgresql_where=unpublished,
    )
    comparisons = sa.text("kind = 'comparison'")
    op.create_index(
        "ix_feedback_comparisons",
        "feedback",
        ["tenant", "body"],
        sqlite_where=comparisons,
        postgresql_where=comparisons,
    )


def downgrade() -> None:
    """Back from this version."""
    op.drop_index("ix_feedback_comparisons", table_name="feedback")
    op.drop_index("ix_controls_unpublished", table_name="controls")
    op.drop_table("replicas")
