"""Row locks in one order, so that ingest processes side by side seldom wait for one another in a circle.

A rollout, its feedback and its scores lie in three topics, so three processes may touch one row of `experiences` at the
same time, and each touches many. On PostgreSQL whoever locks rows in another order than its neighbour may end in a
deadlock; so a batch first locks all of its rows that are there, sorted. (Rows that two processes make at the same
moment can still meet; the database then undoes one transaction, and ingest reads that batch again.) SQLite has one
writer and needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from services.shared.store.tables import experiences
from services.shared.store.upsert import chunks


def lock_experiences(connection: Connection, touched: Iterable[str]) -> None:
    """Holds the rows of these rollout ids, of all tenants, until the transaction ends.

    (The planner takes a list of single values down the key at once; of pairs it makes a condition each.)
    """
    if connection.dialect.name != "postgresql":
        return
    for some in chunks(sorted(set(touched))):
        query = select(experiences.c.rollout_id).where(experiences.c.rollout_id.in_(some))
        connection.execute(query.order_by(experiences.c.rollout_id, experiences.c.tenant).with_for_update()).all()
