"""Stores on a disk for the benchmark: made, loaded, left lying for the next run, measured by size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Index, select, text

from services.shared.store import tables
from services.shared.store.database import Database, open_database
from services.shared.store.migrate import migrate
from services.shared.store.upsert import upsert
from tests.benchmarks.store_rows import LOADED, load
from tests.support.postgres import PostgresServer, postgres_at

BYTES_EACH = 4_500
"""Disk that an experience may need while it is loaded (log and sorting included)."""

_LOADED = "bench_loaded"
_READY = "bench_ready"
_SPOILT = "bench_spoilt"
POSTGRES_SETTINGS = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
}


class Places:
    """Opens stores of one kind, by name."""

    def __init__(self, folder: Path, server: PostgresServer | None) -> None:
        self._folder = folder
        self._server = server

    def open(self, name: str) -> Database:
        """A store that may be loaded already, in part or wholly; one that was measured in part is made anew."""
        database = self._open(name)
        if _flag(database, _SPOILT):
            database.close()
            self.remove(name)
            database = self._open(name)
        return database

    def _open(self, name: str) -> Database:
        if self._server is None:
            database = open_database(f"sqlite:///{self._folder}/{name}.db")
        else:
            self._server.ensure(name)
            database = open_database(self._server.url(name))
        migrate(database)
        return database

    def remove(self, name: str) -> None:
        """Deletes a store."""
        if self._server is None:
            for path in self._folder.glob(f"{name}.db*"):
                path.unlink()
        else:
            self._server.drop(name)


@contextmanager
def open_places(kind: str, folder: Path) -> Iterator[Places]:
    """`kind`: sqlite or postgresql, in a folder that stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        yield Places(folder, None)
        return
    with postgres_at(folder / "postgresql", **POSTGRES_SETTINGS):
        """Some settings are for the next start."""
    with postgres_at(folder / "postgresql", **POSTGRES_SETTINGS) as server:
        yield Places(folder, server)


def fill(database: Database, size: int, tell: Callable[[int], None], *, indexes_last: bool) -> None:
    """Loads a store up to `size`, going on where an earlier run was. `indexes_last`: secondary indexes are made when
    all rows are there, as one loads a large store."""
    if _flag(database, _READY) == str(size):
        return
    loaded = int(_flag(database, _LOADED) or 0)
    indexes: list[Index] = [index for table in LOADED for index in table.indexes] if indexes_last else []
    for index in indexes if loaded < size else ():
        with database.write() as connection:
            index.drop(connection, checkfirst=True)
    for count in load(database, loaded, size, mark=_mark):
        tell(count)
    for index in indexes:
        with database.write() as connection:
            index.create(connection, checkfirst=True)
        tell(size)
    _settle(database)
    with database.write() as connection:
        _mark(connection, size, name=_READY)


def stored_bytes(database: Database) -> int:
    """What the store takes on disk, its log apart."""
    with database.engine.connect() as connection:
        if database.is_postgresql:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(str(database.engine.url.database)).stat().st_size


def _settle(database: Database) -> None:
    if database.is_postgresql:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))


def spoil(database: Database) -> None:
    """From now on the store is no longer as it was loaded."""
    with database.write() as connection:
        _mark(connection, 1, name=_SPOILT)


def _flag(database: Database, name: str) -> str | None:
    with database.read() as connection:
        value: str | None = connection.scalar(select(tables.flags.c.value).where(tables.flags.c.name == name))
    return value


def _mark(connection: Connection, count: int, *, name: str = _LOADED) -> None:
    row = {"name": name, "value": str(count), "reason": "", "change_time": datetime.now(UTC)}
    upsert(connection, tables.flags, [row], update=("value",))
