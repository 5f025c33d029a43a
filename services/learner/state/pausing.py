"""Whether training is paused. Kept in the store, so that a restart does not resume by itself."""

from __future__ import annotations

from sqlalchemy import select

from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import flags
from services.shared.store.upsert import upsert

_NAME = "training_paused"


class Pausing:
    """The switch. Any thread may read or turn it."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def paused(self) -> bool:
        """Asked anew each time: another process may have turned it."""
        with self._database.read() as connection:
            return connection.scalar(select(flags.c.value).where(flags.c.name == _NAME)) == "yes"

    def set(self, paused: bool, *, reason: str) -> None:
        """Twice is once; the reason and time of the last turn are kept for the audit."""
        row = {
            "name": _NAME,
            "value": "yes" if paused else "no",
            "reason": reason,
            "change_time": self._clock(),
        }
        with self._database.write() as connection:
            upsert(connection, flags, [row], update=("value", "reason", "change_time"))
