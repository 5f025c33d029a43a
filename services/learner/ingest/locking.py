"""Row locks in one order, so that ingest processes side by side seldom wait for one another in a circle.

A rollout, its feedback and its scores lie in three topics, so three processes may touch one row of `experiences` at the
same time, and each touches many. On PostgreSQL whoever locks rows in another order than its neighbour may end in a
deadlock; so a batch first locks all of its rows that are there, sorted. (Rows that two processes make at the same
moment can still meet; the database then undoes one transaction, and ingest reads that batch again.) Whoever decides a
slot holds its experience, which it makes where it is missing: a statement that another process is writing is then seen.
SQLite has one writer and needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from services.shared.store.tables import experiences
from services.shared.store.upsert import chunks, insert_missing


def lock_experiences(connection: Connection, touched: Iterable[str]) -> None:
    """Holds the rows of these rollout ids, of all tenants, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        _locked(connection, touched)


def hold_experiences(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Holds the rows of these (tenant, rollout id), all of them: what is missing is made, open."""
    if connection.dialect.name != "postgresql":
        return
    wanted = set(keys)
    missing = wanted - _locked(connection, {rollout_id for _, rollout_id in wanted})
    rows = [
        {"tenant": tenant, "rollout_id": rollout_id, "state": "open"}
        for tenant, rollout_id in sorted(missing, key=lambda key: (key[1], key[0]))
    ]
    insert_missing(connection, experiences, rows)
    # One that another process has made meanwhile is not held by the insert.
    _locked(connection, {rollout_id for _, rollout_id in missing})


def _locked(connection: Connection, rollout_ids: Iterable[str]) -> set[tuple[str, str]]:
    """(Tenant, rollout id) of the rows that are there, now held.

    (The planner takes a list of single values down the key at once; of pairs it makes a condition each.)
    """
    held: set[tuple[str, str]] = set()
    for some in chunks(sorted(set(rollout_ids))):
        query = select(experiences.c.tenant, experiences.c.rollout_id).where(experiences.c.rollout_id.in_(some))
        ordered = query.order_by(experiences.c.rollout_id, experiences.c.tenant).with_for_update()
        held |= {(row.tenant, row.rollout_id) for row in connection.execute(ordered)}
    return held
