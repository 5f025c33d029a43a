"""Ingest: reads `rollouts`, `feedback` and `scores`, and keeps the store in step with them.

It reads by `assign`, never in a group: which partitions are its own is decided by leases in SQL, and how far it has
read is committed there, in the transaction of what it derived. So any number of ingest processes share the log, and one
may die at any time. Kafka or the store being away is waited out. A log that is not the one it was reading stops it with
a clear word, except on the embedded broker, which may lose its tail when killed: there the partition is read again from
its start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from services.learner.ingest.assignment import Assignment
from services.learner.ingest.batch import BatchWriter
from services.learner.ingest.dead_letters import DeadLetters
from services.learner.ingest.members import REPLACED, Members
from services.learner.ingest.positions import Positions
from services.learner.ingest.reporting import Reporting
from services.shared.bus.interface import RECORD_UNREADABLE, Bus, LogReader, Publisher
from services.shared.domain.errors import Busy, Corrupt, Fenced, ThumbloopError, Unavailable
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.telemetry.log import get_logger

POLL_S = 0.2
RETRY_S = 0.5
REOPEN_AFTER = timedelta(seconds=30)
"""A Kafka that has come back elsewhere is found by a new reader alone: this one asks where it knew it."""
CLIENT_ID = "learner-ingest"

_log = get_logger(role="ingest")


class Ingest:
    """One reader of the log. `start` runs it in a thread of its own; `step` is one turn of it."""

    def __init__(
        self,
        *,
        bus: Bus,
        database: Database,
        deployment: str,
        clock: Clock,
        holder: str,
        lease_ttl_s: float,
        embedded: bool,
        on_failure: Callable[[BaseException], None],
        max_dead_letter_share: float = 0.1,
        max_records: int = 500,
        reporting: Reporting | None = None,
    ) -> None:
        """`holder`: stable name of the process, its own alone; `reporting` None: nothing is measured."""
        self._bus = bus
        self._clock = clock
        self._embedded = embedded
        self._on_failure = on_failure
        self._max_records = max_records
        self._lease_round = timedelta(seconds=lease_ttl_s / 3)
        self._reporting = reporting
        positions = Positions(database, clock=clock, holder=holder, ttl_s=lease_ttl_s)
        members = Members(database, clock=clock, holder=holder, ttl_s=lease_ttl_s)
        self.assignment = Assignment(positions, members, holder=holder, deployment=deployment, embedded=embedded)
        self._publisher: Publisher = bus.publisher(f"{CLIENT_ID}-dead-letters")
        dead_letters = DeadLetters(self._publisher, max_share=max_dead_letter_share)
        self.writer = BatchWriter(
            database,
            positions,
            dead_letters,
            deployment=deployment,
            clock=clock,
            gaps=embedded,
            count=reporting.count if reporting else None,
        )
        self._reader: LogReader | None = None
        self._next_round: datetime | None = None
        self._doubted = False
        self._away_since: datetime | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        """Why it stopped by itself; None: it did not."""
        self.waiting = False
        """Its last turn found Kafka, the store, or its partitions, in other hands or away."""

    def start(self) -> None:
        """Begins to read. Kafka need not be there yet."""
        if self._reporting:
            self._reporting.start()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def drain(self, timeout_s: float) -> None:
        """Finishes the batch it is at, commits it, gives its partitions back and ends."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def stop(self) -> None:
        """`drain`, and closes what it holds. Twice is once."""
        self.drain(10.0)
        if self._reader is not None and (self._thread is None or not self._thread.is_alive()):
            self._reader.close()
        self._publisher.close(1.0)
        if self._reporting:
            self._reporting.stop()

    def step(self) -> int:
        """One turn: a round of leases where it is time, one poll, one transaction. How many records were read.

        Raises Unavailable when Kafka is away, Fenced when a partition was taken over, Corrupt when it has to stop.
        After the first two, `forget` and come again.
        """
        reader = self._open()
        now = self._clock()
        if self._next_round is None or now >= self._next_round:
            self.assignment.go_round(reader)
            self._next_round = now + self._lease_round
        try:
            polled = reader.poll(POLL_S, self._max_records)
        except Corrupt as error:
            self._doubt(error)
            return 0
        self._doubted = False
        held = self.assignment.held
        records = [record for record in polled if record.place in held]
        held |= self.writer.write(records, held)
        if self._reporting:
            self._reporting.turn(reader, held, leads=self.assignment.leads)
        return len(records)

    def forget(self) -> None:
        """Drops what it thinks it holds; the next step asks SQL and Kafka again."""
        self.assignment.drop()
        self._next_round = None

    def _open(self) -> LogReader:
        if self._reader is None:
            self._reader = self._bus.log_reader(CLIENT_ID)
        return self._reader

    def _doubt(self, error: Corrupt) -> None:
        """An offset is gone. The next step takes the partitions again, and says what is wrong with which of them."""
        if self._doubted and (not self._embedded or error.reason == RECORD_UNREADABLE):
            raise error
        self._doubted = True
        _log.warning("log_changed", error=error.message)
        self.forget()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self.step()
                    self.waiting, self._away_since = False, None
                except (Unavailable, Busy, Fenced) as error:
                    if error.reason == REPLACED:
                        raise
                    self._wait(error)
            self.assignment.give_back()
        except BaseException as error:
            self.failure = error
            meant = isinstance(error, ThumbloopError)
            word = error.message if isinstance(error, ThumbloopError) else repr(error)
            _log.error("ingest_stopped", error=word, exc_info=None if meant else error)
            self._on_failure(error)

    def _wait(self, error: ThumbloopError) -> None:
        _log.warning("ingest_waits", reason=error.reason, error=error.message)
        self.waiting = True
        self.forget()
        self._reopen_in_time()
        self._stopping.wait(RETRY_S)

    def _reopen_in_time(self) -> None:
        now = self._clock()
        self._away_since = self._away_since or now
        if self._reader is not None and now - self._away_since >= REOPEN_AFTER:
            self._reader.close()
            self._reader, self._away_since = None, now
