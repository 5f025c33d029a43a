"""INSERT ... ON CONFLICT, written once for both dialects.

SQLite and PostgreSQL share the clause; SQLAlchemy offers it in each dialect's own `insert`. Rows go in one statement
with many parameter sets. Lists for IN are cut into pieces, since databases bound the number of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, and_, or_
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")

CHUNK = 500
"""Items of one IN list."""


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], update: Sequence[str]) -> None:
    """Inserts rows; where the primary key is there already, the columns `update` take the new values."""
    if rows:
        insert = insert_into(connection, table)
        keys = [column.name for column in table.primary_key]
        changed = {name: insert.excluded[name] for name in update}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), [dict(row) for row in rows])


def upsert_earliest(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows of events; where a key is there already, the event with the least (event_time, event_id) stays.

    So two events for one key leave the same row whichever comes first.
    """
    if rows:
        insert = insert_into(connection, table)
        keys = [column.name for column in table.primary_key]
        replaced = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        earlier = or_(
            insert.excluded.event_time < table.c.event_time,
            and_(insert.excluded.event_time == table.c.event_time, insert.excluded.event_id < table.c.event_id),
        )
        statement = insert.on_conflict_do_update(index_elements=keys, set_=replaced, where=earlier)
        connection.execute(statement, [dict(row) for row in rows])


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows whose keys are not there; what is there stays as it is."""
    if rows:
        insert = insert_into(connection, table).on_conflict_do_nothing()
        connection.execute(insert, [dict(row) for row in rows])


def chunks(items: Sequence[Item], size: int = CHUNK) -> Iterator[Sequence[Item]]:
    """The items in pieces of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """The dialect's own INSERT, which knows ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
