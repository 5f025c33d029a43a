"""Stores of both kinds for one test: SQLite files below its folder, databases of the shared PostgreSQL server."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from services.shared.store.database import Database, open_database
from services.shared.store.tables import metadata
from tests.support.learner_store import open_test_database
from tests.support.postgres import PostgresServer


class Stores(Protocol):
    """Opens stores by name. The same name is the same store; every opening is a pool of connections of its own."""

    def open(self, name: str = "store") -> Database:
        """A store with all tables."""

    def open_empty(self, name: str = "empty") -> Database:
        """A store without tables, as a first start finds it."""

    def close(self) -> None:
        """Closes all, and removes what would outlive the test."""


class SqliteStores:
    """Files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: list[Database] = []

    def open(self, name: str = "store") -> Database:
        """See the protocol."""
        return self._keep(open_test_database(self._folder, f"{name}.db"))

    def open_empty(self, name: str = "empty") -> Database:
        """See the protocol."""
        return self._keep(open_database(f"sqlite:///{self._folder}/{name}.db"))

    def close(self) -> None:
        """See the protocol."""
        for database in self._opened:
            database.close()

    def _keep(self, database: Database) -> Database:
        self._opened.append(database)
        return database


class PostgresStores:
    """Databases."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._names: dict[str, str] = {}
        self._opened: list[Database] = []

    def open(self, name: str = "store") -> Database:
        """See the protocol."""
        if name not in self._names:
            self._names[name] = self._server.new_store()
        return self._opened_at(name)

    def open_empty(self, name: str = "empty") -> Database:
        """See the protocol."""
        if name not in self._names:
            self._names[name] = self._server.new_database()
        return self._opened_at(name)

    def close(self) -> None:
        """See the protocol."""
        for database in self._opened:
            database.close()
        for name in self._names.values():
            self._server.drop(name)

    def _opened_at(self, name: str) -> Database:
        database = open_database(self._server.url(self._names[name]))
        self._opened.append(database)
        return database


def empty(database: Database) -> None:
    """Removes every row. (Many examples share a store: making one takes longer than an example.)"""
    with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
