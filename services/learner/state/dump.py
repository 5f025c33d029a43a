"""The canonical dump: what the log has made of the store, as text that two stores can be compared by.

Replaying the topics in any interleaving gives the same lines. Claims, uses and releases are the learner's own records
and are left out, and so is everything that depends on the time of asking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Table, select

from services.shared.store.columns import canonical_json, to_micros
from services.shared.store.database import Database
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

_FACTS = (rollouts, rollout_versions, scores, feedback, feedback_slots)
_DELETABLE = (reference_passes, features)
_JOIN = ("rollout_id", "tenant", "end_time", "oldest_version", "eligible", "scored", "rated")


def canonical_dump(database: Database, *, deletable: bool = True) -> list[str]:
    """A line for each row, in the order of primary keys. `deletable`: with what retention may have removed."""
    with database.read() as connection:
        lines: list[str] = []
        for table in (*_FACTS, *(_DELETABLE if deletable else ())):
            lines += _rows(connection, table, [column.name for column in table.columns])
        return lines + list(_rows(connection, experiences, list(_JOIN)))


def dump_digest(database: Database) -> str:
    """Hex sha256 of the dump without what is deletable."""
    return hashlib.sha256("\n".join(canonical_dump(database, deletable=False)).encode()).hexdigest()


def _rows(connection: Connection, table: Table, names: list[str]) -> Iterator[str]:
    query = select(*(table.c[name] for name in names)).order_by(*table.primary_key.columns)
    for row in connection.execute(query):
        values = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        yield f"{table.name} {canonical_json(values)}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "tzinfo"):
        return to_micros(value)
    return value
