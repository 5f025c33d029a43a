"""The spool: bounded, ordered for each rollout, and durable before it answers.

An item *waits* until it has been handed to the log (`mark_sent`) or has left (`remove`). While a rollout has an item
that waits, newer items of it must go through the spool as well: `has_waiting` tells.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.gateway.forgetting.refusal import person_forgotten
from services.gateway.spool import table
from services.gateway.spool.disk import RETRY_AFTER_S, SpoolDisk
from services.gateway.spool.folder import FolderOwnership
from services.gateway.spool.item import SpoolItem, SpoolKey, StoredItem
from services.shared.domain.errors import Busy, Conflict, Unavailable
from services.shared.domain.events import Clock
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.metrics import Metrics

Connect = Callable[[Path], sqlite3.Connection]
SPOOL_FULL = "SPOOL_FULL"
"""Reason of the refusal."""
_OF_FORGOTTEN = -1
"""In place of a position: nothing was put."""


@dataclass(frozen=True, kw_only=True)
class SpoolBounds:
    """What is beyond is refused with Unavailable."""

    max_items: int
    max_bytes: int


class FeedbackSpool:
    """Safe from any thread. Methods that reach the disk give a future and never block."""

    def __init__(
        self,
        folder: Path,
        *,
        bounds: SpoolBounds,
        forgotten: ForgottenRaters,
        clock: Clock,
        metrics: Metrics,
        connect: Connect = table.connect,
    ) -> None:
        """Opens the folder, made at first use, and counts what an earlier run left. Raises Misconfigured.

        Nothing is put of raters in `forgotten`, and those whom an earlier run deleted are added to it: so they are
        known after a restart before the orders can be read again.
        """
        self._bounds = bounds
        self._forgotten = forgotten
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.Lock()
        self._sent: set[int] = set()
        self._clear_log = False
        """A group of the disk's has a deletion that needs it."""
        self._log_cleared = False
        self._oldest_time: float | None = None
        self._ownership = FolderOwnership(folder)
        try:
            connection = connect(folder)
            found = table.totals(connection)
            self._oldest_time = table.oldest_time(connection)
            for tenant, rater_id in table.tombstones(connection):
                forgotten.add(tenant, rater_id)
        except BaseException:
            self._ownership.release()
            raise
        self._items, self._bytes, self._waiting = found.items, found.bytes, found.waiting
        self._disk = SpoolDisk(connection, on_commit=self._keep_up, on_answered=self.note)
        self.note()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finishes writes, lets go of the folder; what lies there stays. Twice is once."""
        self._disk.close()
        self._ownership.release()

    @property
    def items(self) -> int:
        """How many lie there, those that are being written included."""
        return self._items

    @property
    def has_room(self) -> bool:
        """Whether one more small item would be taken."""
        return self._items < self._bounds.max_items and self._bytes < self._bounds.max_bytes

    @property
    def anything_waits(self) -> bool:
        """Whether something waits to be sent: whoever sends it finds out when the log is back."""
        return bool(self._waiting)

    def has_waiting(self, tenant: str, rollout_id: str) -> bool:
        """Whether items of a rollout wait to be sent."""
        return (tenant, rollout_id) in self._waiting

    def put(self, item: SpoolItem, *, sent: bool = False) -> Future[int]:
        """Its position, when the disk has it. The same item again is stored once.

        `sent`: it is handed to the log as soon as it lies here. Raises Unavailable at once when full; the future fails
        with Unavailable where the disk does, with Conflict when another statement lies there under the same key, and
        with PermissionDenied when its rater was forgotten.
        """
        self._reserve(item, sent=sent)
        answer: Future[int] = Future()
        answer.set_running_or_notify_cancel()
        now = self._clock().timestamp()

        def insert(connection: sqlite3.Connection) -> tuple[int, bool]:
            # Asked on the disk's thread: what comes here after `delete_for` must not undo it.
            if self._forgotten.has(item.key.tenant, item.key.rater_id):
                return _OF_FORGOTTEN, False
            return table.insert(connection, item, now)

        done = self._disk.submit(insert)
        done.add_done_callback(lambda placed: self._placed(item, sent, placed, answer))
        return answer

    def oldest(self, limit: int, *, after: int = 0) -> Future[list[StoredItem]]:
        """Items that Kafka may take, in the order of arrival, past position `after`."""
        return self._disk.submit(lambda connection: table.oldest(connection, limit, after))

    def find(self, *, tenant: str, rater_id: str, feedback_id: str) -> Future[StoredItem | None]:
        """A rater's item, one that Kafka refused included; rater "" is anybody of the tenant."""
        return self._disk.submit(lambda connection: table.find(connection, tenant, rater_id, feedback_id))

    def remove(self, positions: Sequence[int]) -> Future[int]:
        """They are safe elsewhere. Gives how many were there."""
        return self._leaving(lambda connection: table.remove(connection, positions))

    def delete_for(self, *, tenant: str, rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> Future[int]:
        """Deletes what these raters said and what was said of these rollouts, and keeps a tombstone for each rater.
        Gives how many items that were. To be called when `forgotten` has them.

        Before it answers, deleted bytes are overwritten in the file, and its write-ahead log is emptied. Fails with
        Busy where somebody reads that log (a backup): the items are gone then, and their bytes may still lie there,
        until it was called again.
        """

        def delete(connection: sqlite3.Connection) -> list[table.Gone]:
            self._clear_log, self._log_cleared = True, False
            table.bury(connection, tenant, rater_ids)
            return table.delete_for(connection, tenant, rater_ids, rollout_ids)

        return self._leaving(delete, failure=self._log_not_cleared)

    def refuse(self, position: int, key: SpoolKey, reason: str) -> Future[bool]:
        """Kafka will never take it: it stays on disk, out of the way, for a person to look at."""

        def note_refused(done: Future[bool]) -> None:
            if done.exception() is None and done.result():
                self.mark_sent(position, key)

        refused = self._disk.submit(lambda connection: table.refuse(connection, position, reason))
        refused.add_done_callback(note_refused)
        return refused

    def mark_sent(self, position: int, key: SpoolKey) -> None:
        """It no longer waits, and stays until it is removed. Twice is once."""
        with self._lock:
            if position not in self._sent:
                self._sent.add(position)
                self._wait_less(key)

    def mark_waiting(self, position: int, key: SpoolKey) -> None:
        """It was sent in vain, and waits again. Twice is once."""
        with self._lock:
            if position in self._sent:
                self._sent.remove(position)
                self._waiting[key.tenant, key.rollout_id] += 1

    def is_sent(self, stored: StoredItem) -> bool:
        """Whether it was handed to the log, by this process."""
        return stored.position in self._sent

    def note(self) -> None:
        """Figures for the operator, as of now."""
        oldest = self._oldest_time
        age = 0.0 if oldest is None else max(0.0, self._clock().timestamp() - oldest)
        self._metrics.set("thumbloop_gateway_spool_items", self._items)
        self._metrics.set("thumbloop_gateway_spool_bytes", self._bytes)
        self._metrics.set("thumbloop_gateway_spool_oldest_seconds", age)

    # --- counting

    def _reserve(self, item: SpoolItem, *, sent: bool) -> None:
        with self._lock:
            full = self._items + 1 > self._bounds.max_items or self._bytes + item.size > self._bounds.max_bytes
            if not full:
                self._items += 1
                self._bytes += item.size
                if not sent:
                    self._waiting[item.key.tenant, item.key.rollout_id] += 1
        if full:
            self._metrics.increment("thumbloop_gateway_spool_full_total")
            raise Unavailable(
                f"Your feedback could not be stored: this gateway's disk holds {self._items} items, as many as "
                "may be there. Send it again later with the same feedback_id; that is safe.",
                reason=SPOOL_FULL,
                retry_after=RETRY_AFTER_S,
            )

    def _placed(self, item: SpoolItem, sent: bool, placed: Future[tuple[int, bool]], answer: Future[int]) -> None:
        """On the disk's thread: the item's commit has returned, or failed."""
        error = placed.exception()
        position, new = (0, False) if error is not None else placed.result()
        with self._lock:
            if new and sent:
                self._sent.add(position)
            elif not new:
                self._items -= 1
                self._bytes -= item.size
                if not sent:
                    self._wait_less(item.key)
        if error is not None:
            answer.set_exception(error)
        elif position == _OF_FORGOTTEN:
            answer.set_exception(person_forgotten())
        elif position == 0:
            answer.set_exception(_used_twice(item))
        else:
            answer.set_result(position)

    def _leaving(
        self,
        operation: Callable[[sqlite3.Connection], list[table.Gone]],
        failure: Callable[[], Busy | None] = lambda: None,
    ) -> Future[int]:
        """`failure` is asked on the disk's thread, when the commit has returned."""
        answer: Future[int] = Future()
        answer.set_running_or_notify_cancel()

        def gone(done: Future[list[table.Gone]]) -> None:
            error = done.exception()
            if error is not None:
                answer.set_exception(error)
                return
            for item in done.result():
                self._left(item)
            if (unfinished := failure()) is not None:
                answer.set_exception(unfinished)
            else:
                answer.set_result(len(done.result()))

        self._disk.submit(operation).add_done_callback(gone)
        return answer

    def _left(self, gone: table.Gone) -> None:
        with self._lock:
            self._items -= 1
            self._bytes -= gone.size
            waited = gone.position not in self._sent and not gone.refused
            self._sent.discard(gone.position)
            if waited:
                self._wait_less(gone)

    def _wait_less(self, of: SpoolKey | table.Gone) -> None:
        """Called under the lock."""
        name = (of.tenant, of.rollout_id)
        self._waiting[name] -= 1
        if self._waiting[name] <= 0:
            del self._waiting[name]

    def _keep_up(self, connection: sqlite3.Connection) -> None:
        """On the disk's thread, after a commit."""
        self._oldest_time = table.oldest_time(connection)
        if self._clear_log:
            # Once for each time that it is wanted: where it fails, whoever wants it is told, and comes again.
            self._clear_log = False
            self._log_cleared = table.clear_log(connection)

    def _log_not_cleared(self) -> Busy | None:
        if self._log_cleared:
            return None
        return Busy(
            "somebody reads the spool's file, whose log still holds what was deleted.", retry_after=RETRY_AFTER_S
        )


def _used_twice(item: SpoolItem) -> Conflict:
    return Conflict(
        f"feedback_id {item.key.feedback_id!r} was used for another statement. To change one's mind, send a new "
        "feedback_id (or none).",
        reason="FEEDBACK_ID_REUSED",
        field="feedback_id",
    )
