"""Rollouts on disk that wait for Kafka: a bounded queue in SQLite that survives kill -9 and power cuts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from services.shared.contracts.rollouts import decode_rollout
from services.shared.domain.errors import Unprocessable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollouts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout_id TEXT NOT NULL UNIQUE,
    event BLOB NOT NULL,
    refused_reason TEXT NOT NULL DEFAULT ''
) STRICT
"""


class RolloutQueue:
    """Safe from any thread; every call blocks for as long as the disk takes. What is put is durable on return."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        # What is deleted is overwritten on the disk, since it may be a person's who is to be forgotten.
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.execute(_SCHEMA)
        self._handed_out: frozenset[str] = frozenset()
        self._count = self._read_count()

    @property
    def count(self) -> int:
        """Rollouts that wait."""
        return self._count

    @property
    def handed_out(self) -> frozenset[str]:
        """Rollouts that `oldest` gave last: deleting one does not call it back."""
        return self._handed_out

    def put(self, rollout_id: str, event: bytes, *, refused_reason: str = "") -> None:
        """Adds an event; the same id again changes nothing. One with a reason is kept, but not waiting for anything."""
        with self._lock:
            self._db.execute(
                "INSERT OR IGNORE INTO rollouts (rollout_id, event, refused_reason) VALUES (?, ?, ?)",
                (rollout_id, event, refused_reason),
            )
            self._count = self._read_count()

    def oldest(self, limit: int) -> list[tuple[str, bytes]]:
        """The next events, in the order they were put; they are `handed_out` until this is asked again."""
        with self._lock:
            rows = self._db.execute(
                "SELECT rollout_id, event FROM rollouts WHERE refused_reason = '' ORDER BY position LIMIT ?", (limit,)
            ).fetchall()
            self._handed_out = frozenset(name for name, _ in rows)
            return rows

    def remove(self, rollout_ids: Sequence[str]) -> None:
        """Kafka has them."""
        with self._lock:
            self._db.executemany("DELETE FROM rollouts WHERE rollout_id = ?", [(name,) for name in rollout_ids])
            self._count = self._read_count()

    def delete_for(self, *, tenant: str, rater_id: str, rollout_ids: Sequence[str]) -> list[str]:
        """Deletes a rater's rollouts, and these, whether they wait or were refused; which they were. Neither they nor
        what had left the queue before remain readable on the disk.
        """
        with self._lock:
            named = self._db.execute(
                "SELECT rollout_id, event FROM rollouts WHERE instr(event, ?) > 0", (rater_id.encode(),)
            ).fetchall()
            theirs = [name for name, event in named if _is_of(event, tenant, rater_id)]
            gone = [
                name
                for name in dict.fromkeys((*theirs, *rollout_ids))
                if self._db.execute("DELETE FROM rollouts WHERE rollout_id = ?", (name,)).rowcount
            ]
            self._count = self._read_count()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return gone

    def refuse(self, rollout_id: str, reason: str) -> None:
        """Kafka will never take it; it stays on disk for a person to look at."""
        with self._lock:
            self._db.execute("UPDATE rollouts SET refused_reason = ? WHERE rollout_id = ?", (reason, rollout_id))
            self._count = self._read_count()

    def close(self) -> None:
        """Twice is once."""
        with self._lock:
            self._db.close()

    def _read_count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM rollouts WHERE refused_reason = ''").fetchone()[0])


def _is_of(event: bytes, tenant: str, rater_id: str) -> bool:
    """The bytes name the pseudonym; are they the rater's, or do they only quote it? What cannot be read counts."""
    try:
        rollout = decode_rollout(event)
    except Unprocessable:
        return True
    return (rollout.meta.tenant, rollout.rater_id) == (tenant, rater_id)
