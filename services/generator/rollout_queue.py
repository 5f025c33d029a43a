"""Rollouts on disk: a bounded queue in SQLite that survives kill -9 and power cuts.

A rollout *waits* until Kafka has it. It then leaves, or is *kept*, where Kafka's word is not enough (the embedded
broker may lose its tail), until the learner's store has it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from services.shared.contracts.rollouts import decode_rollout
from services.shared.domain.errors import Unprocessable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollouts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout_id TEXT NOT NULL UNIQUE,
    event BLOB NOT NULL,
    refused_reason TEXT NOT NULL DEFAULT '',
    kept INTEGER NOT NULL DEFAULT 0
) STRICT
"""
_INDEX = "CREATE INDEX IF NOT EXISTS rollouts_in_order ON rollouts (kept, position) WHERE refused_reason = ''"
_WAITS = "refused_reason = '' AND kept = 0"
_KEPT = "refused_reason = '' AND kept = 1"


class KeptRollout(NamedTuple):
    """Kafka has taken it once."""

    position: int
    rollout_id: str
    event: bytes


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
        self._prepare()
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
                f"SELECT rollout_id, event FROM rollouts WHERE {_WAITS} ORDER BY position LIMIT ?", (limit,)
            ).fetchall()
            self._handed_out = frozenset(name for name, _ in rows)
            return rows

    def keep(self, rollout_ids: Sequence[str]) -> None:
        """Kafka has them, and they stay all the same."""
        self._set_kept(rollout_ids, 1)

    def send_again(self, rollout_ids: Sequence[str]) -> None:
        """These kept ones wait once more."""
        self._set_kept(rollout_ids, 0)

    def count_kept(self) -> int:
        """Rollouts that are kept."""
        with self._lock:
            return int(self._db.execute(f"SELECT count(*) FROM rollouts WHERE {_KEPT}").fetchone()[0])

    def kept(self, limit: int, *, after: int) -> list[KeptRollout]:
        """The next kept ones behind a position, in the order they were put."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT position, rollout_id, event FROM rollouts WHERE {_KEPT} AND position > ? "
                "ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()
        return [KeptRollout(*row) for row in rows]

    def remove_kept_beyond(self, most: int) -> list[str]:
        """Lets the oldest of the kept go until `most` are left; which they were."""
        with self._lock:
            rows = self._db.execute(
                "DELETE FROM rollouts WHERE position IN "
                f"(SELECT position FROM rollouts WHERE {_KEPT} ORDER BY position DESC LIMIT -1 OFFSET ?) "
                "RETURNING rollout_id",
                (most,),
            ).fetchall()
        return [name for (name,) in rows]

    def remove(self, rollout_ids: Sequence[str]) -> None:
        """They are safe elsewhere."""
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

    def _prepare(self) -> None:
        self._db.execute(_SCHEMA)
        if "kept" not in {name for _, name, *_ in self._db.execute("PRAGMA table_info(rollouts)")}:
            self._db.execute("ALTER TABLE rollouts ADD COLUMN kept INTEGER NOT NULL DEFAULT 0")
        self._db.execute(_INDEX)

    def _set_kept(self, rollout_ids: Sequence[str], kept: int) -> None:
        with self._lock:
            self._db.executemany(
                "UPDATE rollouts SET kept = ? WHERE rollout_id = ? AND refused_reason = ''",
                [(kept, name) for name in rollout_ids],
            )
            self._count = self._read_count()

    def _read_count(self) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM rollouts WHERE {_WAITS}").fetchone()[0])


def _is_of(event: bytes, tenant: str, rater_id: str) -> bool:
    """The bytes name the pseudonym; are they the rater's, or do they only quote it? What cannot be read counts."""
    try:
        rollout = decode_rollout(event)
    except Unprocessable:
        return True
    return (rollout.meta.tenant, rollout.rater_id) == (tenant, rater_id)
