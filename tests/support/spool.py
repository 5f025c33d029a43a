"""A spool on a test's own folder, disks that fail on demand, and a learner's store that is a set of keys."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services.gateway.spool import table
from services.gateway.spool.item import SpoolItem, SpoolKey, StoredItem, spool_item
from services.gateway.spool.spool import FeedbackSpool, SpoolBounds
from services.shared.domain.errors import Unavailable
from services.shared.domain.events import Clock
from services.shared.ids import utc_now
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import make_thumb

WAIT_S = 10.0


class FaultyConnection(sqlite3.Connection):
    """A connection whose commits can be held up, or made to fail as a disk does that gives an I/O error."""

    failing = False
    commits = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.committing = threading.Event()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.committing.set()
            assert self.may_commit.wait(WAIT_S), "nobody let the commit go"
            if self.failing:
                raise sqlite3.OperationalError("disk I/O error")
            self.commits += 1
        return super().execute(sql, parameters)


class FaultyDisk:
    """Gives spools such a connection, and keeps hold of it."""

    connection: FaultyConnection

    def connect(self, folder: Path) -> sqlite3.Connection:
        """See `table.connect`."""
        table.connect(folder).close()
        self.connection = sqlite3.connect(
            folder / table.FILE_NAME, isolation_level=None, check_same_thread=False, factory=FaultyConnection
        )
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("PRAGMA secure_delete=ON")
        return self.connection


def open_spool(
    folder: Path,
    *,
    max_items: int = 1_000,
    max_bytes: int = 10_000_000,
    forgotten: ForgottenRaters | None = None,
    clock: Clock = utc_now,
    metrics: Metrics | None = None,
    disk: FaultyDisk | None = None,
) -> FeedbackSpool:
    """Close it."""
    return FeedbackSpool(
        folder,
        bounds=SpoolBounds(max_items=max_items, max_bytes=max_bytes),
        forgotten=forgotten or ForgottenRaters(),
        clock=clock,
        metrics=metrics or Metrics(),
        connect=table.connect if disk is None else disk.connect,
    )


def thumb_item(name: str, **values: Any) -> SpoolItem:
    """A thumb under the feedback id `name`."""
    return spool_item(make_thumb(name, **values))


def stored_thumb(name: str, **values: Any) -> StoredItem:
    """Such a thumb as the disk gives it."""
    return StoredItem(position=1, spooled_time=0.0, item=thumb_item(name, **values))


def put(spool: FeedbackSpool, *names: str, **values: Any) -> list[int]:
    """Thumbs on disk; their positions."""
    return [spool.put(thumb_item(name, **values)).result(WAIT_S) for name in names]


def stored(spool: FeedbackSpool) -> list[StoredItem]:
    """All that waits, in order."""
    return spool.oldest(10_000).result(WAIT_S)


def names(spool: FeedbackSpool) -> list[str]:
    """Their feedback ids."""
    return [item.item.key.feedback_id for item in stored(spool)]


class StoreOfKeys:
    """See StoredFeedback: has what a test adds, and is away while `away`."""

    def __init__(self) -> None:
        self.keys: set[SpoolKey] = set()
        self.away = False
        self.asked: list[SpoolKey] = []
        self.on_asked: Callable[[], None] = lambda: None
        """What happens while it is asked."""

    async def find_stored(self, *, tenant: str, keys: Sequence[SpoolKey], timeout_s: float) -> list[bool]:
        assert timeout_s > 0 and 1 <= len(keys) <= 1_000 and all(key.tenant == tenant for key in keys)
        if self.away:
            raise Unavailable("the learner is away")
        self.on_asked()
        self.asked += keys
        return [key in self.keys for key in keys]
