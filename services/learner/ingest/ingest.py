"""Ingest: reads `rollouts`, `feedback` and `scores`, and keeps the store in step with them.

It reads by `assign`, never in a group: which partitions are its own is decided by leases in SQL, and how far it has
read is committed there, in the transaction of what it derived. Kafka being away is waited out. A log that is not the
one it was reading stops it with a clear word, except on the embedded broker, which may lose its tail when killed:
there the partition is read again from its start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from services.learner.ingest.batch import BatchWriter
from services.learner.ingest.continuity import check_continuity
from services.learner.ingest.dead_letters import MAX_SHARE, DeadLetters
from services.learner.ingest.decoding import TOPICS
from services.learner.ingest.positions import Position, Positions
from services.shared.bus.interface import Bus, LogReader, Place, Publisher
from services.shared.domain.errors import Busy, Corrupt, Fenced, Unavailable
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.telemetry.log import get_logger

POLL_S = 0.2
RETRY_S = 0.5
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
        max_dead_letter_share: float = MAX_SHARE,
        max_records: int = 500,
    ) -> None:
        self._bus = bus
        self._deployment = deployment
        self._clock = clock
        self._embedded = embedded
        self._on_failure = on_failure
        self._max_records = max_records
        self._lease_round = timedelta(seconds=lease_ttl_s / 3)
        self._positions = Positions(database, clock=clock, holder=holder, ttl_s=lease_ttl_s)
        self._publisher: Publisher = bus.publisher(f"{CLIENT_ID}-dead-letters")
        dead_letters = DeadLetters(self._publisher, max_share=max_dead_letter_share)
        self._writer = BatchWriter(
            database, self._positions, dead_letters, deployment=deployment, clock=clock, gaps=embedded
        )
        self._held: dict[Place, Position] = {}
        self._reader: LogReader | None = None
        self._next_round: datetime | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        """Why it stopped by itself; None: it did not."""
        self.waiting = False
        """Its last turn found Kafka, or its partitions, in other hands."""

    def start(self) -> None:
        """Begins to read. Kafka need not be there yet."""
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

    def step(self) -> int:
        """One turn: leases where it is time, one poll, one transaction. How many records were read.

        Raises Unavailable when Kafka is away, Fenced when a partition was taken over, Corrupt when it has to stop.
        After the first two, `forget` and come again.
        """
        reader = self._open()
        now = self._clock()
        if self._next_round is None or now >= self._next_round:
            self._go_round(reader)
            self._next_round = now + self._lease_round
        try:
            records = reader.poll(POLL_S, self._max_records)
            records = [record for record in records if record.place in self._held]
            self._held |= self._writer.write(records, self._held)
        except Corrupt as error:
            if not self._embedded or error.reason == "TOO_MANY_DEAD_LETTERS":
                raise
            _log.warning("log_changed", error=error.message)
            self.forget()
            return 0
        return len(records)

    def forget(self) -> None:
        """Drops what it thinks it holds; the next step asks SQL and Kafka again."""
        self._held = {}
        self._next_round = None

    def _open(self) -> LogReader:
        if self._reader is None:
            self._reader = self._bus.log_reader(CLIENT_ID)
        return self._reader

    def _go_round(self, reader: LogReader) -> None:
        """Renews leases, takes what is free (new partitions too), and assigns the reader when anything changed."""
        kept = {position.place: position for position in self._positions.renew(self._held.values())}
        missing = [place for topic in TOPICS for place in reader.places(topic) if place not in kept]
        taken: list[Position] = []
        if missing:
            taken = self._positions.take(reader.beginning_offsets(missing), reader.cluster_id())
            taken = self._checked(reader, taken)
        if taken or len(kept) != len(self._held):
            self._held = kept | {position.place: position for position in taken}
            reader.assign({place: position.next for place, position in self._held.items()})
            _log.info("partitions_assigned", partitions=len(self._held))

    def _checked(self, reader: LogReader, taken: Sequence[Position]) -> list[Position]:
        """The positions to read on from. Raises Corrupt where the log is another one (embedded: starts it again)."""
        wrong = check_continuity(reader, taken, deployment=self._deployment)
        if wrong and not self._embedded:
            raise next(iter(wrong.values()))
        checked: list[Position] = []
        for position in taken:
            if position.place in wrong:
                _log.warning("partition_read_again", partition=str(position.place), error=wrong[position.place].message)
                beginning = reader.beginning_offsets([position.place])[position.place]
                position = self._positions.restart(position, beginning=beginning, cluster_id=reader.cluster_id())
            checked.append(position)
        return checked

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self.step()
                    self.waiting = False
                except (Unavailable, Busy, Fenced) as error:
                    _log.warning("ingest_waits", reason=error.reason, error=error.message)
                    self.waiting = True
                    self.forget()
                    self._stopping.wait(RETRY_S)
            self._positions.give_back(self._held.values())
        except BaseException as error:
            self.failure = error
            _log.error("ingest_stopped", error=str(error))
            self._on_failure(error)
