"""Seconds of processor that using a store has cost: our own, and those of the PostgreSQL process that serves us.

What PostgreSQL does in its other processes (log, checkpoints, vacuum) is not in it, and neither is waiting.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import text

from services.shared.store.database import Database


class CpuClock:
    """Read before and after. A database that one thread uses has one connection, and so one process."""

    def __init__(self, database: Database) -> None:
        self._stat: Path | None = None
        if database.is_postgresql:
            with database.read() as connection:
                self._stat = Path(f"/proc/{connection.scalar(text('SELECT pg_backend_pid()'))}/schedstat")

    def __call__(self) -> float:
        """Seconds so far."""
        served_ns = 0 if self._stat is None else int(self._stat.read_text(encoding="ascii").split()[0])
        return time.process_time() + served_ns / 1e9
