"""Deletes rows by their keys, and rollouts with all that hangs on them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, bindparam, delete

from services.shared.store.tables import (
    experiences,
    features,
    feedback,
    feedback_slots,
    reference_passes,
    rollout_versions,
    rollouts,
    scores,
)

OF_A_ROLLOUT = (features, reference_passes, scores, rollout_versions, experiences, rollouts)
"""Tables whose rows belong to one rollout, by its id, and say nothing of anybody else."""

RolloutKey = tuple[str, str]
"""(rollout id, tenant)."""


def delete_rollouts(connection: Connection, keys: Sequence[RolloutKey]) -> None:
    """The rollouts alone, without what was said of them."""
    for table in OF_A_ROLLOUT:
        delete_each(connection, table, ("rollout_id", "tenant"), keys)


def delete_rollouts_and_feedback(connection: Connection, keys: Sequence[RolloutKey]) -> None:
    """The rollouts, and all that was said of them."""
    for table in (feedback, feedback_slots):
        delete_each(connection, table, ("rollout_id", "tenant"), keys)
    delete_rollouts(connection, keys)


def delete_each(connection: Connection, table: Table, names: Sequence[str], values: Sequence[tuple[str, ...]]) -> None:
    """The rows with these values of the columns `names`: one statement with many parameter sets, each down a key.

    (Given a list, SQLite would rather go through all that a tenant has.)
    """
    one = delete(table).where(*(table.c[name] == bindparam(f"this_{name}") for name in names))
    rows = [{f"this_{name}": value for name, value in zip(names, row, strict=True)} for row in values]
    if rows:
        connection.execute(one, rows)
