"""Deletions that leave nothing behind in SQLite's file.

By itself SQLite only marks the room of what was deleted as free. With `secure_delete=FAST`, which all connections have,
deleted bytes are overwritten in pages that are written anyway; pages that become free as a whole (long texts have pages
of their own) keep what they held. To overwrite these too costs a page written for each page freed, so it is done where
people's words are deleted or replaced, and not for features, which are many pages of numbers.
(https://www.sqlite.org/pragma.html#pragma_secure_delete)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection


@contextmanager
def erasing(connection: Connection) -> Iterator[None]:
    """What the block deletes is overwritten. Older copies may lie in the log until `Database.clear_log`."""
    if connection.dialect.name != "sqlite":
        yield
        return
    _set(connection, "ON")
    try:
        yield
    finally:
        _set(connection, "FAST")


def _set(connection: Connection, mode: str) -> None:
    connection.exec_driver_sql(f"PRAGMA secure_delete={mode}").close()
