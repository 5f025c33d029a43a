"""The tenant in the keys of what is told about a rollout, keys in the order of time, text compared by code points.

On PostgreSQL every text column gets the collation "C"; SQLite has no other. Rows stay as they are: until now a rollout
id stood once in each of these tables. An index of the few experiences without a rollout takes the place of one of all
end times.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WITHOUT_ROWID = {"sqlite_with_rowid": False}

_KEYS: tuple[tuple[str, list[str], dict[str, bool]], ...] = (
    ("experiences", ["rollout_id", "tenant"], _WITHOUT_ROWID),
    ("scores", ["rollout_id", "reward_model_version", "tenant"], _WITHOUT_ROWID),
    ("reference_passes", ["rollout_id", "tenant"], _WITHOUT_ROWID),
    ("features", ["rollout_id", "tenant"], {}),
    ("feedback_slots", ["rollout_id", "tenant", "rater_id", "kind"], _WITHOUT_ROWID),
)


def upgrade() -> None:
    """To this version."""
    op.drop_index("ix_experiences_ready", table_name="experiences")
    op.drop_index("ix_experiences_end_time", table_name="experiences")
    op.drop_index("ix_feedback_slots_rollout", table_name="feedback_slots")
    if op.get_bind().dialect.name == "postgresql":
        _collate_by_code_points()
    for table, key, options in _KEYS:
        _make_key(table, key, options)
    op.create_index(
        "ix_experiences_ready",
        "experiences",
        ["state", "eligible", "scored", "oldest_version", "end_time", "rollout_id"],
    )
    waiting = sa.text("end_time IS NULL")
    op.create_index(
        "ix_experiences_waiting", "experiences", ["rollout_id"], sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_index("ix_feedback_slots_rater", "feedback_slots", ["tenant", "rater_id"])
    op.create_index("ix_reference_passes_event_time", "reference_passes", ["event_time", "rollout_id"])
    op.create_index("ix_features_event_time", "features", ["event_time", "rollout_id"])


def downgrade() -> None:
    """There is none: a key without the tenant could not hold the rows that this version allows."""
    raise NotImplementedError("restore the backup that was made before the upgrade")


def _make_key(table: str, key: list[str], options: dict[str, bool]) -> None:
    """A new primary key; SQLite copies the table, with its other indexes, for that."""
    name = f"pk_{table}"
    with op.batch_alter_table(table, recreate="auto", table_kwargs=options) as batch:
        batch.drop_constraint(name, type_="primary")
        batch.create_primary_key(name, key)


def _collate_by_code_points() -> None:
    """Of all columns of text; alembic's own table has nothing to be ordered."""
    inspector = sa.inspect(op.get_bind())
    for table in inspector.get_table_names():
        if table != "alembic_version":
            texts = [column["name"] for column in inspector.get_columns(table) if isinstance(column["type"], sa.Text)]
            changes = ", ".join(f'ALTER COLUMN "{name}" TYPE text COLLATE "C"' for name in texts)
            op.execute(f'ALTER TABLE "{table}" {changes}')
