"""Rollouts on disk: a bounded queue in SQLite that survives kill -9 and power cuts.

A rollout *waits* until Kafka has it. It then leaves, or is *kept*, where Kafka's word is not enough (the embedded
broker may lose its tail), until the learner's store has it and a score of it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from services.shared.contracts.rollouts import decode_rollout
from services.shared.domain.errors import Busy, Unprocessable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollouts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout_id TEXT NOT NULL UNIQUE,
    event BLOB NOT NULL,
    refused_reason TEXT NOT NULL DEFAULT ''
) STRICT
"""
_LATER_COLUMNS = {
    "kept_for": "TEXT NOT NULL DEFAULT ''",  # the tenant; empty: it waits
    "sent_count": "INTEGER NOT NULL DEFAULT 0",
    "sent_order": "INTEGER NOT NULL DEFAULT 0",
    "sent_time": "REAL NOT NULL DEFAULT 0",
}
_WAITS = "refused_reason = '' AND kept_for = ''"
_KEPT = "refused_reason = '' AND kept_for <> ''"
_REFUSED = "refused_reason <> ''"
_INDEXES = (
    f"CREATE INDEX IF NOT EXISTS rollouts_waiting ON rollouts (position) WHERE {_WAITS}",
    f"CREATE INDEX IF NOT EXISTS rollouts_kept ON rollouts (position) WHERE {_KEPT}",
    f"CREATE INDEX IF NOT EXISTS rollouts_refused ON rollouts (position) WHERE {_REFUSED}",
)


BUSY_TIMEOUT_MS = 10_000
CLEAR_LOG_MS = 50
"""Answers wait for the queue meanwhile: whoever reads for longer is not waited for."""


class WaitingRollout(NamedTuple):
    """Kafka is to have it."""

    rollout_id: str
    event: bytes
    sent_count: int
    """How often Kafka has taken it before."""


class KeptRollout(NamedTuple):
    """Kafka has taken it."""

    position: int
    rollout_id: str
    tenant: str
    sent_count: int
    """How often."""
    sent_order: int
    """Grows with each sending; the same for what was sent together."""
    sent_time: float
    """When last, in seconds since 1970."""


class RolloutQueue:
    """Safe from any thread; every call blocks for as long as the disk takes. What is put is durable on return."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1_000)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        # What is deleted is overwritten on the disk, since it may be a person's who is to be forgotten.
        self._db.execute("PRAGMA secure_delete=ON")
        self._prepare()
        self._handed_out: frozenset[str] = frozenset()
        self._count = self._read_count(_WAITS)
        self._sent_order = int(self._db.execute("SELECT coalesce(max(sent_order), 0) FROM rollouts").fetchone()[0])

    @property
    def count(self) -> int:
        """Rollouts that wait."""
        return self._count

    @property
    def handed_out(self) -> frozenset[str]:
        """Rollouts that `oldest` gave last: deleting one does not call it back."""
        return self._handed_out

    def count_kept(self) -> int:
        """Rollouts that are kept."""
        with self._lock:
            return self._read_count(_KEPT)

    def count_refused(self) -> int:
        """Rollouts that Kafka will never take."""
        with self._lock:
            return self._read_count(_REFUSED)

    def put(self, rollout_id: str, event: bytes, *, refused_reason: str = "") -> None:
        """Adds an event; the same id again changes nothing. One with a reason is on disk, and waits for nothing."""
        with self._written():
            self._db.execute(
                "INSERT OR IGNORE INTO rollouts (rollout_id, event, refused_reason) VALUES (?, ?, ?)",
                (rollout_id, event, refused_reason),
            )

    def oldest(self, limit: int) -> list[WaitingRollout]:
        """The next events that wait, in the order they were put; they are `handed_out` until this is asked again."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT rollout_id, event, sent_count FROM rollouts WHERE {_WAITS} ORDER BY position LIMIT ?",
                (limit,),
            ).fetchall()
            waiting = [WaitingRollout(*row) for row in rows]
            self._handed_out = frozenset(one.rollout_id for one in waiting)
            return waiting

    def keep(self, rollouts: Sequence[tuple[str, str]], *, sent_time: float) -> None:
        """Kafka has these (rollout id, tenant), and they stay all the same."""
        with self._written():
            self._sent_order += 1
            self._db.executemany(
                "UPDATE rollouts SET kept_for = ?, sent_count = sent_count + 1, sent_order = ?, sent_time = ? "
                "WHERE rollout_id = ?",
                [(tenant, self._sent_order, sent_time, name) for name, tenant in rollouts],
            )

    def kept(self, limit: int, *, after: int) -> list[KeptRollout]:
        """The next kept ones behind a position, in the order they were put."""
        with self._lock:
            rows = self._db.execute(
                "SELECT position, rollout_id, kept_for, sent_count, sent_order, sent_time FROM rollouts "
                f"WHERE {_KEPT} AND position > ? ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()
        return [KeptRollout(*row) for row in rows]

    def send_again(self, rollout_ids: Sequence[str]) -> None:
        """These wait once more."""
        with self._written():
            self._db.executemany(
                "UPDATE rollouts SET kept_for = '' WHERE rollout_id = ?", [(name,) for name in rollout_ids]
            )

    def send_all_again(self) -> int:
        """All that are kept wait once more; how many."""
        with self._written():
            return self._db.execute(f"UPDATE rollouts SET kept_for = '' WHERE {_KEPT}").rowcount

    def remove_kept_beyond(self, most: int) -> int:
        """Lets the oldest of the kept go until `most` are left; how many."""
        return self._remove_beyond(most, _KEPT)

    def remove_refused_beyond(self, most: int) -> int:
        """Lets the oldest of the refused go until `most` are left; how many."""
        return self._remove_beyond(most, _REFUSED)

    def remove(self, rollout_ids: Sequence[str]) -> None:
        """They are safe elsewhere."""
        with self._written():
            self._db.executemany("DELETE FROM rollouts WHERE rollout_id = ?", [(name,) for name in rollout_ids])

    def delete_for(self, *, tenant: str, rater_id: str, rollout_ids: Sequence[str]) -> list[str]:
        """Deletes a rater's rollouts, and these, whether they wait, are kept or were refused; which they were. Their
        bytes may remain on the disk until `clear_log`.
        """
        with self._written():
            named = self._db.execute(
                "SELECT rollout_id, event FROM rollouts WHERE instr(event, ?) > 0", (rater_id.encode(),)
            ).fetchall()
            theirs = [name for name, event in named if _is_of(event, tenant, rater_id)]
            return [
                name
                for name in dict.fromkeys((*theirs, *rollout_ids))
                if self._db.execute("DELETE FROM rollouts WHERE rollout_id = ?", (name,)).rowcount
            ]

    def clear_log(self) -> None:
        """Empties the file's write-ahead log, so that nothing that was deleted, or had left the queue before, remains
        readable on the disk. Raises Busy while another connection reads from it.
        """
        with self._lock:
            self._db.execute(f"PRAGMA busy_timeout={CLEAR_LOG_MS}")
            try:
                blocked, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if blocked:
            raise Busy("somebody reads the queue's file, whose log still holds what was deleted.")

    def refuse(self, rollout_id: str, reason: str) -> None:
        """Kafka will never take it; it stays on disk for a person to look at, see `remove_refused_beyond`."""
        with self._written():
            self._db.execute("UPDATE rollouts SET refused_reason = ? WHERE rollout_id = ?", (reason, rollout_id))

    def close(self) -> None:
        """Twice is once."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction, and one wait for the disk, whatever the number of rows."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            self._count = self._read_count(_WAITS)

    def _remove_beyond(self, most: int, which: str) -> int:
        with self._written():
            return self._db.execute(
                "DELETE FROM rollouts WHERE position IN "
                f"(SELECT position FROM rollouts WHERE {which} ORDER BY position DESC LIMIT -1 OFFSET ?)",
                (most,),
            ).rowcount

    def _prepare(self) -> None:
        self._db.execute(_SCHEMA)
        there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(rollouts)")}
        for name, declared in _LATER_COLUMNS.items():
            if name not in there:
                self._db.execute(f"ALTER TABLE rollouts ADD COLUMN {name} {declared}")
        for index in _INDEXES:
            self._db.execute(index)

    def _read_count(self, which: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM rollouts WHERE {which}").fetchone()[0])


def _is_of(event: bytes, tenant: str, rater_id: str) -> bool:
    """The bytes name the pseudonym; are they the rater's, or do they only quote it? What cannot be read counts."""
    try:
        rollout = decode_rollout(event)
    except Unprocessable:
        return True
    return (rollout.meta.tenant, rollout.rater_id) == (tenant, rater_id)
