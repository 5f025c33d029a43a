"""From the topic `rollouts` to the topic `scores`: may score twice, never not at all.

Offsets are committed only after Kafka has acknowledged the scores (and the dead letters) of everything before them.
Until a reward model is live nothing is read. While Kafka is away the consumer waits and tries again. A batch that fails
for another reason is scored rollout by rollout; one that fails alone goes to the dead letters, unless the model itself
is broken: that ends the thread.
Lifecycle: `start`, `drain` (finishes the records in hand, then commits), `failure` says why the thread ended by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.reward.base_model import Answer
from services.reward.forgetting import RecordsInHand
from services.reward.score_events import RolloutScorer
from services.shared.bus.interface import REBALANCED, GroupReader, OutgoingEvent, Publisher, Record
from services.shared.contracts.rollouts import SENT_BEFORE, decode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import ROLLOUTS, SCORES, dead_letter_topic
from services.shared.domain.errors import (
    Busy,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    Unavailable,
    Unprocessable,
)
from services.shared.domain.rollout import Rollout
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()
_RETRYABLE = (Unavailable, Busy)
_LATER = (*_RETRYABLE, FailedPrecondition)
"""A pass may succeed later: the queue is full, a reward model is still being staged."""

MOST_UNSCORABLE = 3
"""So many rollouts in a row may fail on a model that works; one more, and it is not the rollouts."""


@dataclass(frozen=True, kw_only=True)
class ConsumerPace:
    """How much at a time, and how long anything may take, in seconds."""

    max_records: int = 64
    poll_s: float = 0.5
    pass_s: float = 120.0
    acknowledge_s: float = 15.0
    retry_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class _Readable:
    """A record that can be scored; `answer` None: its response has no token."""

    record: Record
    rollout: Rollout
    answer: Answer | None


class RolloutConsumer:
    """One thread that owns a group reader."""

    def __init__(
        self,
        open_reader: Callable[[], GroupReader],
        publisher: Publisher,
        scorer: RolloutScorer,
        *,
        deployment: str,
        ready: Callable[[], bool],
        metrics: Metrics,
        in_hand: RecordsInHand,
        pace: ConsumerPace | None = None,
    ) -> None:
        """`open_reader` is called in the thread (a reader belongs to one). `ready`: a reward model is live."""
        self._open_reader = open_reader
        self._publisher = publisher
        self._scorer = scorer
        self._deployment = deployment
        self._ready = ready
        self._metrics = metrics
        self._in_hand = in_hand
        self._pace = pace or ConsumerPace()
        self._max_records = self._pace.max_records
        self._unscorable_in_a_row = 0
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rollout-consumer", daemon=True)

    def start(self) -> None:
        """Reads from now on."""
        self._thread.start()

    def drain(self, timeout_s: float) -> None:
        """Finishes the records in hand, at most so long. Twice is once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """The thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._read_until_away()
        except BaseException as error:  # The process must end with a clear word; main looks here.
            self.failure = error
            _log.error("rollout_consumer_failed", exc_info=error)

    def _read_until_away(self) -> None:
        """Reads with one reader until Kafka is away, then waits a little."""
        reader: GroupReader | None = None
        try:
            while not self._stopping.is_set():
                if not self._ready():
                    self._stopping.wait(self._pace.poll_s)
                    continue
                reader = reader or self._open_reader()
                self._in_hand.begin()
                records = reader.poll(self._pace.poll_s, self._max_records)
                if records and self._handle(records):
                    self._commit(reader, records)
        except _RETRYABLE as error:
            _log.warning("rollouts_not_readable", reason=error.reason, message=error.message)
            self._stopping.wait(self._pace.retry_s)
        finally:
            if reader is not None:
                reader.close()

    def _commit(self, reader: GroupReader, records: Sequence[Record]) -> None:
        """Raises Unavailable. A group lets go of a member that does not poll for five minutes: so when it took these
        back, fewer are taken at a time, or a slow model would score the same ones for ever.
        """
        try:
            reader.commit(records)
        except Unavailable as error:
            if error.reason == REBALANCED:
                self._max_records = max(1, len(records) // 2)
            raise
        self._max_records = min(self._pace.max_records, 2 * self._max_records)

    def _handle(self, records: Sequence[Record]) -> bool:
        """Scores and emits until Kafka has everything. False: stopped before, nothing may be committed."""
        readable, letters = self._sort(records)
        while not self._stopping.is_set():
            try:
                scored = self._scored(readable)
            except _LATER as error:
                _log.warning("scoring_waits", reason=error.reason, message=error.message)
                self._stopping.wait(self._pace.retry_s)
            else:
                return self._emit([*letters, *scored])
        return False

    def _sort(self, records: Sequence[Record]) -> tuple[list[_Readable], list[OutgoingEvent]]:
        """What can be scored, and dead letters of what cannot; without people who were forgotten."""
        readable: list[_Readable] = []
        letters: list[OutgoingEvent] = []
        self._in_hand.begin()
        for record in records:
            try:
                rollout = decode_rollout(record.value)
                if self._in_hand.take(rollout):
                    readable.append(self._read(record, rollout))
            except Unprocessable as error:
                if not self._in_hand.names_forgotten(record):
                    letters.append(self._dead_letter(record, error))
        return readable, letters

    def _read(self, record: Record, rollout: Rollout) -> _Readable:
        """Raises Unprocessable for what can never be scored."""
        if rollout.meta.deployment != self._deployment:
            raise Unprocessable(
                f"the rollout is of deployment {rollout.meta.deployment!r}, this is {self._deployment!r}",
                reason="OTHER_DEPLOYMENT",
            )
        return _Readable(record=record, rollout=rollout, answer=self._scorer.answer_of(rollout))

    def _scored(self, readable: Sequence[_Readable]) -> list[OutgoingEvent]:
        """A score for each, or a dead letter for one that the model fails on. Raises `_LATER`, or the model's fault."""
        try:
            scores = self._scores(readable)
        except _LATER:
            raise
        except Exception as error:
            _log.error("batch_not_scored", rollouts=len(readable), exc_info=error)
            if isinstance(error, DeadlineExceeded) and len(readable) == 1:
                return [self._set_aside(readable[0], error)]  # a second try takes as long
            return [self._scored_alone(one) for one in readable]
        if scores:
            self._unscorable_in_a_row = 0
        return scores

    def _scored_alone(self, one: _Readable) -> OutgoingEvent:
        try:
            score = self._scores([one])[0]
        except _LATER:
            raise
        except Exception as error:
            return self._set_aside(one, error)
        self._unscorable_in_a_row = 0
        return score

    def _set_aside(self, one: _Readable, error: Exception) -> OutgoingEvent:
        """A dead letter, or raises `error` where the model is at fault."""
        # What is sent again is no new evidence, and several that failed long ago may come together.
        self._unscorable_in_a_row += SENT_BEFORE not in one.record.headers
        if self._unscorable_in_a_row > MOST_UNSCORABLE:
            raise error
        try:
            self._scorer.check_model(timeout_s=self._pace.pass_s)
        except Exception as broken:
            raise error from broken
        words = f"rollout {one.rollout.rollout_id} cannot be scored: {type(error).__name__}: {error}"
        return self._dead_letter(one.record, Unprocessable(words, reason="NOT_SCORABLE"))

    def _scores(self, readable: Sequence[_Readable]) -> list[OutgoingEvent]:
        if not readable:
            return []
        begun = time.monotonic()
        scores = self._scorer.score([(one.rollout, one.answer) for one in readable], timeout_s=self._pace.pass_s)
        events = [OutgoingEvent(topic=SCORES, key=score.rollout_id, value=encode_score(score)) for score in scores]
        self._metrics.observe("thumbloop_reward_batch_seconds", time.monotonic() - begun)
        self._metrics.increment("thumbloop_reward_scored_total", len(scores), source="event")
        for score in scores:
            self._metrics.observe("thumbloop_reward_score", score.mean)
        return events

    def _emit(self, events: Sequence[OutgoingEvent]) -> bool:
        """Sends until Kafka has acknowledged all. False: stopped before."""
        waiting = list(events)
        while waiting and not self._stopping.is_set():
            waiting = self._send(waiting)
            if waiting:
                self._stopping.wait(self._pace.retry_s)
        return not waiting

    def _send(self, events: Sequence[OutgoingEvent]) -> list[OutgoingEvent]:
        """One attempt; gives back what was not acknowledged."""
        sent = [(event, self._publisher.send(event)) for event in self._in_hand.without_forgotten(events)]
        failed = []
        for event, future in sent:
            try:
                future.result(timeout=self._pace.acknowledge_s)
            except InvalidInput as error:
                # Too large for the topic: repeating cannot help, and what follows must not wait for it for ever.
                _log.error("score_too_large", key=event.key, topic=event.topic, message=error.message)
            except (*_RETRYABLE, TimeoutError) as error:
                _log.warning("score_not_acknowledged", key=event.key, error=str(error))
                failed.append(event)
        return failed

    def _dead_letter(self, record: Record, error: Unprocessable) -> OutgoingEvent:
        _log.warning("rollout_dead_lettered", reason=error.reason, message=error.message, offset=record.offset)
        return OutgoingEvent(
            topic=dead_letter_topic(ROLLOUTS),
            key=record.key,
            value=record.value,
            headers={
                **record.headers,
                "dlq-reason": error.reason.encode(),
                "dlq-message": error.message.encode()[:1000],
                "dlq-consumer": b"reward",
                "dlq-topic": record.place.topic.encode(),
                "dlq-partition": str(record.place.partition).encode(),
                "dlq-offset": str(record.offset).encode(),
            },
        )
