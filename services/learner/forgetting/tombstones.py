"""Tombstones: ids of what was forgotten, so that it does not come back when the log is read again.

A *rater's* tombstone keeps out all rollouts and statements of that pseudonym, for ever; a *rollout's* keeps out the
rollout, its scores, and whatever anybody says of it. A *feedback's* tombstone keeps nothing out, for senders choose
feedback ids, and two people may choose the same one; it tells candidates that learned from a deleted statement.

Whoever stores events asks here in the same transaction, before it writes. On PostgreSQL both sides take an advisory
lock, so that no event can be stored beside a deletion that did not see it; SQLite has one writer anyway. Whoever stores
takes it before it locks any row: a deletion holds the lock while it waits for rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select, text

from services.shared.store.tables import tombstones
from services.shared.store.upsert import chunks, insert_missing

_LOCK = 0x7B0F0261
"""Names the advisory lock between storing and forgetting."""


class Subject(StrEnum):
    """What a tombstone is of."""

    RATER = "rater"
    ROLLOUT = "rollout"
    FEEDBACK = "feedback"


def forgotten_ids(connection: Connection, *, tenant: str, subject: Subject, ids: Iterable[str]) -> dict[str, str]:
    """Those of the ids that have a tombstone, each with the order that made it. Holds off forgetting until the
    transaction ends.
    """
    wanted = sorted({one for one in ids if one})
    if not wanted:
        return {}
    _lock(connection, shared=True)
    found: dict[str, str] = {}
    if _is_empty(connection, tenant):
        return found
    for some in chunks(wanted):
        query = select(tombstones.c.subject_id, tombstones.c.control_id).where(
            tombstones.c.tenant == tenant,
            tombstones.c.subject == subject.value,
            tombstones.c.subject_id.in_(some),
        )
        found.update({row.subject_id: row.control_id for row in connection.execute(query)})
    return found


def rollouts_of_orders(connection: Connection, *, tenant: str, control_ids: Iterable[str]) -> set[str]:
    """All rollout ids that these orders have forgotten so far."""
    found: set[str] = set()
    for some in chunks(sorted(set(control_ids))):
        query = select(tombstones.c.subject_id).where(
            tombstones.c.tenant == tenant,
            tombstones.c.subject == Subject.ROLLOUT.value,
            tombstones.c.control_id.in_(some),
        )
        found.update(connection.scalars(query))
    return found


def write_tombstones(
    connection: Connection, *, tenant: str, subject: Subject, ids: Iterable[str], control_id: str, now: datetime
) -> None:
    """Adds what is missing; an id that was forgotten before keeps its first order."""
    rows = [
        {
            "tenant": tenant,
            "subject": subject.value,
            "subject_id": one,
            "control_id": control_id,
            "forget_time": now,
        }
        for one in sorted(set(ids))
    ]
    insert_missing(connection, tombstones, rows)


def hold_off_forgetting(connection: Connection) -> None:
    """Waits for a deletion that is under way, and makes new ones wait until this transaction ends."""
    _lock(connection, shared=True)


def hold_off_storing(connection: Connection) -> None:
    """Waits for transactions that store events, and makes new ones wait until this one ends."""
    _lock(connection, shared=False)


def _lock(connection: Connection, *, shared: bool) -> None:
    if connection.dialect.name == "postgresql":
        name = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.execute(text(f"SELECT {name}(:lock)"), {"lock": _LOCK})


def _is_empty(connection: Connection, tenant: str) -> bool:
    """Most deployments have forgotten nobody: one look instead of a list of ids."""
    return connection.scalar(select(tombstones.c.subject).where(tombstones.c.tenant == tenant).limit(1)) is None
