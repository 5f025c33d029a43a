"""Opens the learner's SQL store and gives transactions on it.

One `Database` a process; it may be used from any thread. SQLite runs in WAL mode with `synchronous=FULL` (a commit
that returned survives a power cut), and a writing transaction begins with BEGIN IMMEDIATE, so that it waits for its
turn at the start instead of failing in the middle (https://www.sqlite.org/lang_transaction.html). PostgreSQL writes
in READ COMMITTED and reads in REPEATABLE READ, which is a snapshot too.

A store that cannot serve now (PostgreSQL restarts, a deadlock, a lock or a free connection that was waited for too
long) is `Unavailable`: nothing of the transaction has been done, and it may be tried again. Statements have no deadline
of their own, since migrations and deletions of much may take long; that the other side vanished without a word is
noticed by the connection, at both of its ends, after about a minute.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from services.shared.domain.errors import Busy, Misconfigured, Unavailable

BUSY_TIMEOUT_MS = 30_000
"""How long a transaction waits for another's lock."""

CLEAR_LOG_MS = 1_000
"""How long writers may be kept waiting for readers, so that SQLite's log can be emptied."""

CONNECT_TIMEOUT_S = 10
IDLE_S, PROBES_S, PROBES = 30, 10, 3
"""TCP keep-alive: after so much silence a probe, and so many before the connection is given up (`tcp(7)`)."""

UNACKNOWLEDGED_MS = 30_000
"""How long the other side may leave what was sent without an acknowledgement (TCP_USER_TIMEOUT)."""

POOL = {"pool_size": 5, "max_overflow": 35, "pool_timeout": BUSY_TIMEOUT_MS / 1000}
"""Connections of a process: enough for all threads that may ask at once, the event loop's 32 helpers and the roles'
own. The few that are used all the time stay open."""

CACHE_KIB = 64 * 1024
"""Pages that a SQLite connection keeps: the inner pages and warm ends of B-trees of many million rows."""

_BEGIN = "thumbloop_begin"
_RETRY_S = 0.5
_TURN_S = 0.02
_SQLITE_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """Transactions on one store. `write` commits when its block ends, and undoes everything when the block raises."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = engine.execution_options(**snapshot) if self.is_postgresql else engine

    @property
    def is_postgresql(self) -> bool:
        """Where row locks and SKIP LOCKED exist."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent look at the store: a snapshot. Raises Unavailable."""
        with _unavailable_told(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction. Raises Unavailable."""
        with _unavailable_told(), self._writing.begin() as connection:
            yield connection

    def clear_log(self) -> None:
        """Empties SQLite's write-ahead log into the file, so that nothing that was deleted before is left in it.

        Raises Busy while a transaction still reads from the log, Unavailable. PostgreSQL's log is its own affair.
        """
        if self.is_postgresql:
            return
        with _unavailable_told():
            connection = self.engine.raw_connection()
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout={CLEAR_LOG_MS}")
            blocked, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            connection.close()
        if blocked:
            raise Busy("a transaction still reads from the store's log.", retry_after=_RETRY_S)

    def close(self) -> None:
        """Closes the pooled connections. Twice is once."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """A store at a SQLAlchemy URL; SQLite's folder is made. The tables are made by `migrations.migrate`.

    Raises Misconfigured for a URL that no driver here understands.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return Database(_open_sqlite(url, parsed.database))
        return Database(_open_postgresql(url))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise Misconfigured(
            f"the store's URL {make_url_safe(url)!r} cannot be opened: {error}. Set THUMBLOOP_LEARNER__STORE_URL to"
            " sqlite:////folder/store.db or postgresql+psycopg://USER@HOST/NAME (extra `postgres`)."
        ) from error


def make_url_safe(url: str) -> str:
    """The URL without its password; as it is where it does not parse."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


@contextmanager
def _unavailable_told() -> Iterator[None]:
    """Tells what may pass by itself from what will not."""
    try:
        yield
    except NoFreeConnection as error:
        raise Unavailable(
            "all of the store's connections are in use.", reason="STORE_UNAVAILABLE", retry_after=_RETRY_S
        ) from error
    except OperationalError as error:
        origin = error.orig
        if isinstance(origin, sqlite3.Error) and not _is_locked(origin):
            raise
        raise Unavailable(
            f"the store does not serve now: {str(origin).strip()}", reason="STORE_UNAVAILABLE", retry_after=_RETRY_S
        ) from error


def _is_locked(error: BaseException) -> bool:
    """Whether SQLite could not have a lock that another connection holds."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_LOCKED


def _open_postgresql(url: str) -> Engine:
    connect_args = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives": 1,
        "keepalives_idle": IDLE_S,
        "keepalives_interval": PROBES_S,
        "keepalives_count": PROBES,
        "tcp_user_timeout": UNACKNOWLEDGED_MS,
    }
    engine = create_engine(url, pool_pre_ping=True, connect_args=connect_args, **POOL)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        for setting, value in (
            ("lock_timeout", BUSY_TIMEOUT_MS),
            # The server's side of the connection: what a learner that vanished has locked must come free.
            ("tcp_keepalives_idle", IDLE_S),
            ("tcp_keepalives_interval", PROBES_S),
            ("tcp_keepalives_count", PROBES),
        ):
            connection.execute(f"SET {setting} = {value}")
        connection.commit()

    return engine


def _open_sqlite(url: str, path: str | None) -> Engine:
    if not path or path == ":memory:":
        raise Misconfigured("the store must be a file: threads would each see another in-memory database.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **POOL)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself; `_begin` does
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _write_ahead(connection)
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{CACHE_KIB}",
            "secure_delete=FAST",  # deletions of people's words go further: `erasing`
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    return engine


def _write_ahead(connection: Any) -> None:
    """WAL is the file's own property, so a new file is converted once. Where several connections would convert it at
    once, SQLite refuses all but one immediately: it has no busy timeout for a lock that two readers both wait to
    upgrade (https://www.sqlite.org/c3ref/busy_handler.html). Each waits for its turn here. Raises sqlite3.Error."""
    turns = Retrying(
        retry=retry_if_exception(_is_locked),
        wait=wait_random(max=_TURN_S),
        stop=stop_after_delay(BUSY_TIMEOUT_MS / 1000),
        reraise=True,
    )
    turns(connection.execute, "PRAGMA journal_mode=WAL")
