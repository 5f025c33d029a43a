"""The spool's SQL. Functions run on the disk's thread, inside a transaction of the disk unless they say otherwise."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from services.gateway.spool.item import ROW_BYTES, SpoolItem, SpoolKey, StoredItem
from services.shared.domain.errors import Misconfigured

FILE_NAME = "feedback.db"
FORMAT = 1
BUSY_TIMEOUT_MS = 5_000
CLEAR_LOG_MS = 50
"""Feedback waits meanwhile: whoever reads for longer is not waited for."""
_MOST_PARAMETERS = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    rollout_id TEXT NOT NULL,
    rater_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    feedback_id TEXT NOT NULL,
    content TEXT NOT NULL,
    spooled_time REAL NOT NULL,
    refused_reason TEXT NOT NULL DEFAULT '',
    event BLOB NOT NULL,
    UNIQUE (tenant, rollout_id, rater_id, kind, feedback_id)
) STRICT;
CREATE INDEX IF NOT EXISTS items_of_rater ON items (tenant, rater_id, feedback_id);
CREATE INDEX IF NOT EXISTS items_of_tenant ON items (tenant, feedback_id);
CREATE TABLE IF NOT EXISTS tombstones (
    tenant TEXT NOT NULL,
    rater_id TEXT NOT NULL,
    PRIMARY KEY (tenant, rater_id)
) STRICT, WITHOUT ROWID;
"""
_KEY = "tenant = ? AND rollout_id = ? AND rater_id = ? AND kind = ? AND feedback_id = ?"
_RETURNING = f"RETURNING position, length(event) + {ROW_BYTES}, tenant, rollout_id, refused_reason <> ''"
_COLUMNS = "position, spooled_time, refused_reason, tenant, rollout_id, rater_id, kind, feedback_id, content, event"


class Gone(NamedTuple):
    """An item that is no longer on disk, or no longer waits there."""

    position: int
    size: int
    tenant: str
    rollout_id: str
    refused: bool
    """It had been refused before, so nothing waited for it."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What lies on disk, items that Kafka will never take included."""

    items: int
    bytes: int
    waiting: Counter[tuple[str, str]]
    """Items that wait to be sent, by (tenant, rollout id)."""


def connect(folder: Path) -> sqlite3.Connection:
    """Opens the file, made at first use. Raises Misconfigured for one that is damaged or of a later release."""
    path = folder / FILE_NAME
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1_000, cached_statements=32
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise Misconfigured(
            f"{path} cannot be used as a spool ({error}). It may hold feedback that was acknowledged: copy it and its "
            f"-wal file away before anything else. `sqlite3 {FILE_NAME} .recover` may save items; then remove it, "
            "and the gateway makes a new one.",
            reason="SPOOL_DAMAGED",
        ) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # A commit returns when the disk has it: an acknowledgement rests on that.
    connection.execute("PRAGMA synchronous=FULL")
    # What is deleted is overwritten, since it may be what a person wants forgotten.
    connection.execute("PRAGMA secure_delete=ON")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        raise Misconfigured(
            f"{path} was written by a later release (format {found}; this one knows {FORMAT}). Start that release, or "
            "let it drain the spool first.",
            reason="SPOOL_FORMAT",
        )
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version={FORMAT}")


def insert(connection: sqlite3.Connection, item: SpoolItem, now: float) -> tuple[int, bool]:
    """Position, and whether it is new. The same key and content again changes nothing; position 0: another content."""
    done = connection.execute(
        "INSERT OR IGNORE INTO items (tenant, rollout_id, rater_id, kind, feedback_id, content, spooled_time, event) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*item.key, item.content, now, item.event),
    )
    if done.rowcount == 1 and done.lastrowid is not None:
        return done.lastrowid, True
    position, content = connection.execute(f"SELECT position, content FROM items WHERE {_KEY}", item.key).fetchone()
    return (position if content == item.content else 0), False


def oldest(connection: sqlite3.Connection, limit: int, after: int) -> list[StoredItem]:
    """Items that wait, in the order of arrival, from past position `after` on."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM items WHERE position > ? AND refused_reason = '' ORDER BY position LIMIT ?",
        (after, limit),
    )
    return [_stored(row) for row in rows]


def find(connection: sqlite3.Connection, tenant: str, rater_id: str, feedback_id: str) -> StoredItem | None:
    """The first item of a rater under that id; rater "" is anybody."""
    whose, values = ("AND rater_id = ?", (rater_id,)) if rater_id else ("", ())
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM items WHERE tenant = ? AND feedback_id = ? {whose} ORDER BY position LIMIT 1",
        (tenant, feedback_id, *values),
    ).fetchone()
    return None if row is None else _stored(row)


def remove(connection: sqlite3.Connection, positions: Iterable[int]) -> list[Gone]:
    """Deletes items."""
    return [
        Gone(*row)
        for position in positions
        for row in connection.execute(f"DELETE FROM items WHERE position = ? {_RETURNING}", (position,)).fetchall()
    ]


def refuse(connection: sqlite3.Connection, position: int, reason: str) -> bool:
    """Kafka will never take it: it stays for a person to look at. False: it is gone, or was refused before."""
    done = connection.execute(
        "UPDATE items SET refused_reason = ? WHERE position = ? AND refused_reason = ''", (reason, position)
    )
    return bool(done.rowcount)


def delete_for(
    connection: sqlite3.Connection, tenant: str, rater_ids: Sequence[str], rollout_ids: Sequence[str]
) -> list[Gone]:
    """Deletes all of these raters and of these rollouts."""
    gone: list[Gone] = []
    for column, values in (("rater_id", rater_ids), ("rollout_id", rollout_ids)):
        for begin in range(0, len(values), _MOST_PARAMETERS):
            some = values[begin : begin + _MOST_PARAMETERS]
            marks = ", ".join("?" * len(some))
            rows = connection.execute(
                f"DELETE FROM items WHERE tenant = ? AND {column} IN ({marks}) {_RETURNING}", (tenant, *some)
            )
            gone += [Gone(*row) for row in rows.fetchall()]
    return gone


def clear_log(connection: sqlite3.Connection) -> bool:
    """Empties the write-ahead log into the file, so that nothing that was deleted before is left in it. False: a
    transaction of another connection still reads from it. To be called outside a transaction.
    """
    connection.execute(f"PRAGMA busy_timeout={CLEAR_LOG_MS}")
    try:
        blocked, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    return not blocked


def bury(connection: sqlite3.Connection, tenant: str, rater_ids: Iterable[str]) -> None:
    """Remembers that these raters were forgotten. Twice is once."""
    connection.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", [(tenant, rater) for rater in rater_ids])


def tombstones(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(tenant, rater id) of all that were forgotten here."""
    return connection.execute("SELECT tenant, rater_id FROM tombstones").fetchall()


def totals(connection: sqlite3.Connection) -> Totals:
    """Counted anew."""
    items, size = connection.execute(
        f"SELECT count(*), coalesce(sum(length(event) + {ROW_BYTES}), 0) FROM items"
    ).fetchone()
    groups = connection.execute(
        "SELECT tenant, rollout_id, count(*) FROM items WHERE refused_reason = '' GROUP BY tenant, rollout_id"
    )
    waiting = Counter({(tenant, rollout_id): count for tenant, rollout_id, count in groups})
    return Totals(items=items, bytes=size, waiting=waiting)


def oldest_time(connection: sqlite3.Connection) -> float | None:
    """When the oldest item came that Kafka may take; None: there is none."""
    row = connection.execute(
        "SELECT spooled_time FROM items WHERE refused_reason = '' ORDER BY position LIMIT 1"
    ).fetchone()
    return None if row is None else float(row[0])


def _stored(row: tuple[int, float, str, str, str, str, str, str, str, bytes]) -> StoredItem:
    position, spooled_time, refused_reason, tenant, rollout_id, rater_id, kind, feedback_id, content, event = row
    key = SpoolKey(tenant=tenant, rollout_id=rollout_id, rater_id=rater_id, kind=kind, feedback_id=feedback_id)
    return StoredItem(
        position=position,
        spooled_time=spooled_time,
        refused_reason=refused_reason,
        item=SpoolItem(key=key, content=content, event=event),
    )
