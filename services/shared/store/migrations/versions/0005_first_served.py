"""When users got the first token of a release: kept there once retention deletes the rollouts that say so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.shared.store.columns import UtcTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    comment = "as far as deleted rollouts say; null: none of them does"
    op.add_column("releases", sa.Column("first_served_time", UtcTime(), comment=comment))


def downgrade() -> None:
    """Back from this version."""
    op.drop_column("releases", "first_served_time")
