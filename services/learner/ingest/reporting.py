"""What ingest tells of itself: counts of records, lag of each partition, feedback by state, and offsets for Kafka.

All of it is best effort and bounded: a look at the log's ends every few seconds, a look at the store's newest feedback
(by one process alone), and a thread that mirrors offsets. None of it decides anything: a look that fails is left out,
and what it shows stays as it was until the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from services.learner.ingest.decoding import Read
from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.ingest.offset_mirror import OffsetMirror
from services.learner.ingest.positions import Position
from services.shared.bus.interface import LogReader, Place
from services.shared.domain.errors import ThumbloopError
from services.shared.domain.events import Clock
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

LAG_INTERVAL = timedelta(seconds=5)
FEEDBACK_INTERVAL = timedelta(seconds=15)

_log = get_logger(role="ingest")


class Reporting:
    """Called by the ingest thread."""

    def __init__(self, metrics: Metrics, *, clock: Clock, feedback: FeedbackGauges, mirror: OffsetMirror) -> None:
        self._metrics = metrics
        self._clock = clock
        self._feedback = feedback
        self._mirror = mirror
        self._next_lag: datetime | None = None
        self._next_feedback: datetime | None = None
        self._shown: set[Place] = set()

    def start(self) -> None:
        """Begins to mirror offsets."""
        self._mirror.start()

    def stop(self) -> None:
        """Mirrors what is left, within a bound. Twice is once."""
        self._mirror.stop()

    def count(self, items: Sequence[Read], gone: Collection[str]) -> None:
        """Records of a batch that has been committed; of the rollouts `gone` nothing was stored."""
        outcomes = Counter((item.record.place.topic, _outcome(item, gone)) for item in items)
        for (topic, outcome), number in outcomes.items():
            self._metrics.increment("thumbloop_ingest_events_total", number, topic=topic, outcome=outcome)
        for item in items:
            if item.error:
                topic, reason = item.record.place.topic, item.error.reason
                self._metrics.increment("thumbloop_ingest_dead_letters_total", topic=topic, reason=reason)

    def turn(self, reader: LogReader, held: Mapping[Place, Position], *, leads: bool) -> None:
        """After each turn of ingest. `leads`: this process is the one that reports what all have in common."""
        self._mirror.note({place: position.next for place, position in held.items()})
        now = self._clock()
        if self._next_lag is None or now >= self._next_lag:
            self._next_lag = now + LAG_INTERVAL
            _look("lag", lambda: self._show_lag(reader.end_offsets(list(held)) if held else {}, held))
        if self._next_feedback is None or now >= self._next_feedback:
            self._next_feedback = now + FEEDBACK_INTERVAL
            _look("feedback", self._feedback.refresh if leads else self._feedback.clear)

    def _show_lag(self, ends: Mapping[Place, int], held: Mapping[Place, Position]) -> None:
        for topic, partition in self._shown - held.keys():
            self._metrics.remove("thumbloop_ingest_lag_events", topic=topic, partition=str(partition))
        for place, end in ends.items():
            lag = max(0, end - held[place].next)
            self._metrics.set("thumbloop_ingest_lag_events", lag, topic=place.topic, partition=str(place.partition))
        self._shown = set(held)


def _outcome(item: Read, gone: Collection[str]) -> str:
    if item.fact is None:
        return "dead_letter"
    return "past_retention" if item.fact.rollout_id in gone else "stored"


def _look(what: str, look: Callable[[], None]) -> None:
    """Kafka or the store may be away just now; whoever reads and writes there finds out by themselves."""
    try:
        look()
    except ThumbloopError as error:
        _log.warning("ingest_not_reported", what=what, reason=error.reason, error=error.message)
