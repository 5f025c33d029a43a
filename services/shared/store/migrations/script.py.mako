"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import services.shared.store.columns
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Back from this version."""
    ${downgrades if downgrades else "pass"}
