"""From the topic `rollouts` to the topic `scores`: may score twice, never not at all.

Offsets are committed only after Kafka has acknowledged the scores (and the dead letters) of everything before them.
Until a reward model is live nothing is read. While Kafka is away the consumer waits and tries again.
Lifecycle: `start`, `drain` (finishes the records in hand, then commits), `failure` says why the thread ended by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.reward.base_model import Answer
from services.reward.score_events import RolloutScorer
from services.shared.bus.interface import GroupReader, OutgoingEvent, Publisher, Record
from services.shared.contracts.rollouts import decode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import ROLLOUTS, SCORES, dead_letter_topic
from services.shared.domain.errors import Busy, FailedPrecondition, InvalidInput, Unavailable, Unprocessable
from services.shared.domain.rollout import Rollout
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()
_RETRYABLE = (Unavailable, Busy)


@dataclass(frozen=True, kw_only=True)
class ConsumerPace:
    """How much at a time, and how long anything may take, in seconds."""

    max_records: int = 64
    poll_s: float = 0.5
    pass_s: float = 120.0
    acknowledge_s: float = 15.0
    retry_s: float = 1.0


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
        pace: ConsumerPace | None = None,
    ) -> None:
        """`open_reader` is called in the thread (a reader belongs to one). `ready`: a reward model is live."""
        self._open_reader = open_reader
        self._publisher = publisher
        self._scorer = scorer
        self._deployment = deployment
        self._ready = ready
        self._metrics = metrics
        self._pace = pace or ConsumerPace()
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
                records = reader.poll(self._pace.poll_s, self._pace.max_records)
                if records and self._handle(records):
                    reader.commit(records)
        except _RETRYABLE as error:
            _log.warning("rollouts_not_readable", reason=error.reason, message=error.message)
            self._stopping.wait(self._pace.retry_s)
        finally:
            if reader is not None:
                reader.close()

    def _handle(self, records: Sequence[Record]) -> bool:
        """Scores and emits until Kafka has everything. False: stopped before, nothing may be committed."""
        rollouts: list[tuple[Rollout, Answer | None]] = []
        events: list[OutgoingEvent] = []
        for record in records:
            try:
                rollout = self._read(record)
                rollouts.append((rollout, self._scorer.answer_of(rollout)))
            except Unprocessable as error:
                events.append(self._dead_letter(record, error))
        while not self._stopping.is_set():
            try:
                events.extend(self._scores(rollouts))
                return self._emit(events)
            except (*_RETRYABLE, FailedPrecondition) as error:
                _log.warning("scoring_waits", reason=error.reason, message=error.message)
                self._stopping.wait(self._pace.retry_s)
        return False

    def _read(self, record: Record) -> Rollout:
        rollout = decode_rollout(record.value)
        if rollout.meta.deployment != self._deployment:
            raise Unprocessable(
                f"the rollout is of deployment {rollout.meta.deployment!r}, this is {self._deployment!r}",
                reason="OTHER_DEPLOYMENT",
            )
        return rollout

    def _scores(self, rollouts: Sequence[tuple[Rollout, Answer | None]]) -> list[OutgoingEvent]:
        if not rollouts:
            return []
        begun = time.monotonic()
        scores = self._scorer.score(rollouts, timeout_s=self._pace.pass_s)
        self._metrics.observe("thumbloop_reward_batch_seconds", time.monotonic() - begun)
        self._metrics.increment("thumbloop_reward_scored_total", len(scores), source="event")
        for score in scores:
            self._metrics.observe("thumbloop_reward_score", score.mean)
        return [OutgoingEvent(topic=SCORES, key=score.rollout_id, value=encode_score(score)) for score in scores]

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
        sent = [(event, self._publisher.send(event)) for event in events]
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
