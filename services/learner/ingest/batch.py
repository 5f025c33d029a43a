"""One polled batch becomes one SQL transaction: derived rows, offsets, counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from services.learner.forgetting.keeping_out import without_forgotten_records
from services.learner.forgetting.tombstones import hold_off_forgetting
from services.learner.ingest.continuity import log_not_continuous
from services.learner.ingest.dead_letters import DeadLetters
from services.learner.ingest.decoding import Read, read
from services.learner.ingest.locking import lock_experiences
from services.learner.ingest.positions import Position, Positions
from services.learner.ingest.store_feedback import store_feedback
from services.learner.ingest.store_rollouts import store_rollouts
from services.learner.ingest.store_scores import store_scores
from services.learner.state.past_retention import past_retention
from services.shared.bus.interface import Place, Record
from services.shared.domain.events import Clock
from services.shared.domain.feedback import Feedback
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.store.database import Database


class BatchWriter:
    """Writes batches. A batch is wholly in the store, or not at all."""

    def __init__(
        self,
        database: Database,
        positions: Positions,
        dead_letters: DeadLetters,
        *,
        deployment: str,
        clock: Clock,
        gaps: bool,
        count: Callable[[Sequence[Read], Collection[str]], None] | None = None,
    ) -> None:
        """`gaps`: offsets may be missing, as on the embedded broker after it was killed. `count` is told of what has
        been committed, and of which rollouts it was left out."""
        self._count = count
        self._gaps = gaps
        self._database = database
        self._positions = positions
        self._dead_letters = dead_letters
        self._deployment = deployment
        self._clock = clock

    def write(self, records: Sequence[Record], held: Mapping[Place, Position]) -> dict[Place, Position]:
        """Where the touched partitions are afterwards.

        Raises Fenced (another has a partition), Unavailable (dead letters were not acknowledged), Corrupt (a gap, or
        too many dead letters); nothing has been committed then.
        """
        items: list[Read] = []
        moved: dict[Place, Position] = {}
        for place in sorted({record.place for record in records}):
            mine = [record for record in records if record.place == place and record.offset >= held[place].next]
            if mine:
                if not self._gaps:
                    _check_order(held[place], mine)
                reads = [read(record, deployment=self._deployment) for record in mine]
                moved[place] = self._after(held[place], reads)
                items += reads
        if not moved:
            return moved
        unreadable = [item for item in items if item.error is not None]
        self._dead_letters.publish(without_forgotten_records(self._database, unreadable))
        with self._database.write() as connection:
            hold_off_forgetting(connection)
            for place, to in moved.items():
                self._positions.advance(connection, held[place], to=to)
            arrived = [item.fact for item in items if item.fact is not None]
            touched = {fact.rollout_id for fact in arrived}
            lock_experiences(connection, touched)
            gone = past_retention(connection, touched)
            facts = [fact for fact in arrived if fact.rollout_id not in gone]
            store_rollouts(connection, [fact for fact in facts if isinstance(fact, Rollout)])
            store_scores(connection, [fact for fact in facts if isinstance(fact, Score)])
            store_feedback(connection, [fact for fact in facts if isinstance(fact, Feedback)])
            self._dead_letters.count(connection, unreadable, self._clock())
        if self._count is not None:
            self._count(items, gone)
        return moved

    def _after(self, position: Position, reads: Sequence[Read]) -> Position:
        dead = sum(item.error is not None for item in reads)
        recent_read, recent_dead = self._dead_letters.recount(position, read=len(reads), dead=dead)
        return replace(
            position,
            next=reads[-1].record.offset + 1,
            last_event_id=reads[-1].event_id,
            recent_read=recent_read,
            recent_dead=recent_dead,
        )


def _check_order(position: Position, records: Sequence[Record]) -> None:
    """Offsets follow one another: our topics are never compacted, and nothing in them is transactional."""
    for expected, record in enumerate(records, start=position.next):
        if record.offset != expected:
            raise log_not_continuous(
                position.place, f"offset {record.offset} came where {expected} was due: records are missing"
            )
