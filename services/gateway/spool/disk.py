"""The thread that writes: what many requests hand in at one time becomes one transaction, so one wait for the disk.

A *commit group* is all that was handed in while the disk was busy with the group before. Nothing is answered before
the group's commit has returned, which it does when the disk has it (synchronous=FULL).
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from services.shared.domain.errors import Unavailable
from services.shared.telemetry.log import get_logger

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

MAX_GROUP = 1_000
RETRY_AFTER_S = 2.0
CLOSE_TIMEOUT_S = 10.0
_log = get_logger()


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    operation: Operation[T]
    future: Future[T]


class SpoolDisk:
    """Owns the connection. `submit` may be called from any thread and never blocks."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        on_commit: Callable[[sqlite3.Connection], None] = lambda _: None,
        on_answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Both are called on the thread, for each group: between its commit and its answers, and after these."""
        self._connection = connection
        self._on_commit = on_commit
        self._on_answered = on_answered
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="feedback-spool", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[T]) -> Future[T]:
        """The result, once the disk has it. Fails with Unavailable where the disk fails; then nothing was changed."""
        future: Future[T] = Future()
        # Nobody can cancel it: it is on its way whether or not someone still waits.
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self._closed:
                self._jobs.put(_Job(operation, future))
                return future
        future.set_exception(Unavailable("The spool is closed; the gateway shuts down.", reason="SPOOL_CLOSED"))
        return future

    def close(self) -> None:
        """Finishes what was handed in. Twice is once."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._jobs.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        while group := self._next_group():
            self._commit(group)
        self._connection.close()

    def _next_group(self) -> list[_Job[Any]]:
        """Waits for the first, takes all that are there. Empty: closed, and all is done."""
        group: list[_Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) >= MAX_GROUP:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._jobs.put(None)
        return group

    def _commit(self, group: list[_Job[Any]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [job.operation(self._connection) for job in group]
            self._connection.execute("COMMIT")
        except Exception as error:  # whatever it was, none of the group may be answered as stored
            self._roll_back()
            failure = _failed(error)
            for job in group:
                job.future.set_exception(failure)
            return
        try:
            self._on_commit(self._connection)
        except sqlite3.Error as error:  # the group is safe all the same
            _log.warning("spool_upkeep_failed", cause=repr(error))
        for job, result in zip(group, results, strict=True):
            job.future.set_result(result)
        self._on_answered()

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            _log.error("spool_rollback_failed", cause=repr(error))


def _failed(error: Exception) -> Unavailable:
    _log.error("spool_write_failed", cause=repr(error))
    return Unavailable(
        "Your feedback could not be stored: this gateway's disk refuses it for the moment. Send it again with the same "
        "feedback_id; that is safe.",
        reason="SPOOL_FAILED",
        retry_after=RETRY_AFTER_S,
    )
