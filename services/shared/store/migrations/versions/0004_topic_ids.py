"""Which topic was read: one that was made again under its name has another id."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.shared.store.columns import ExactText

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    op.add_column(
        "ingest_offsets",
        sa.Column("topic_id", ExactText(), nullable=False, server_default="", comment="empty: not known"),
    )


def downgrade() -> None:
    """Back from this version."""
    op.drop_column("ingest_offsets", "topic_id")
