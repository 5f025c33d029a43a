"""The producer's side of the bus.

`send` and `publish` only put an event into a bounded queue, for everything in kafka-python may block: the constructor
until Kafka answers, the producer's own `send` until it has metadata. A *hand-over* thread does that. A *deadline*
thread fails an event that was not acknowledged in time; an event already handed over keeps its place in the bound until
Kafka's client has let go of it, so that nothing piles up there while Kafka is away.

A producer that can send no more is *broken*: it is closed, another is made, and what it had not sent goes first, in its
old order. For an idempotent one it takes an answer of MESSAGE_TOO_LARGE, or one batch that ran out of time (Kafka was
away for longer than `ack_timeout_s`): it then gives up its producer id, never asks for another, and sends nothing more.
One whose brokers moved asks for metadata, or for a producer id, where they were: only another one looks for them anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)

from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.bus.kafka_connection import RETRY_AFTER_S, KafkaConnection
from services.shared.bus.loop_outcomes import LoopOutcomes
from services.shared.domain.errors import Busy, InvalidInput, ThumbloopError, Unavailable

RECONNECT_INTERVAL_S = 0.2
CLOSE_BROKEN_S = 1.0
"""How long a broken producer may take to let go of what it still holds; the rest goes again."""

Outcome = Record | ThumbloopError


@dataclass(eq=False, kw_only=True, slots=True)
class _Pending:
    """An event that has not been acknowledged."""

    event: OutgoingEvent
    deadline: float
    tell: Callable[[Outcome], None]
    """Whoever waits hears of the outcome, once. Called without the lock: it may be anybody's code."""
    settled: bool = False
    """The outcome is known."""
    holder: Any = None
    """The producer to which it was handed over, until that lets go of it."""
    number: int = 0
    """Order of admission."""


class KafkaPublisher:
    """See `Publisher`."""

    def __init__(self, connection: KafkaConnection, client_id: str) -> None:
        self._connection = connection
        self._settings = connection.settings
        self._client_id = client_id
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        """There is something for the hand-over thread."""
        self._timing = threading.Condition(self._lock)
        """There is something for the deadline thread."""
        self._drained = threading.Condition(self._lock)
        """Nothing is unfinished."""
        self._queue: deque[_Pending] = deque()
        self._again: deque[_Pending] = deque()
        self._by_deadline: deque[_Pending] = deque()
        self._overdue: deque[_Pending] = deque()
        """Past their deadlines, and held by a producer when they passed."""
        self._watches_nothing = False
        """The deadline thread knows no deadline of an event. Else it wakes by then, and no new event's is earlier."""
        self._unfinished = 0
        self._admitted = 0
        self._closing = False
        self._stopped = False
        self._producer: Any = None
        self._broken = False
        self._loops: dict[asyncio.AbstractEventLoop, LoopOutcomes[Record]] = {}
        """Loops in which somebody publishes: one in a process, and others only in tests."""
        self._threads = [
            threading.Thread(target=self._hand_over_all, name=f"{client_id}-hand-over", daemon=True),
            threading.Thread(target=self._watch_deadlines, name=f"{client_id}-deadlines", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, event: OutgoingEvent) -> Future[Record]:
        """See `Publisher`."""
        future: Future[Record] = Future()
        # From here on nobody can cancel it: the event is on its way whether or not someone still waits.
        future.set_running_or_notify_cancel()
        refusal = self._admit(event, partial(_tell_future, future))
        if refusal is not None:
            future.set_exception(refusal)
        return future

    async def publish(self, event: OutgoingEvent) -> Record:
        """See `Publisher`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Record] = loop.create_future()
        refusal = self._admit(event, partial(self._outcomes_of(loop).tell, future))
        if refusal is not None:
            raise refusal
        return await future

    def close(self, timeout_s: float) -> None:
        """See `Publisher`."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._closing = True
            self._drained.wait_for(lambda: self._unfinished == 0, timeout_s)
            self._stopped = True
            self._work.notify_all()
            self._timing.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close_producer(producer, max(0.0, deadline - time.monotonic()))
        self._fail_rest()

    # --- admission and results

    def _outcomes_of(self, loop: asyncio.AbstractEventLoop) -> LoopOutcomes[Record]:
        known = self._loops.get(loop)
        if known is None:
            with self._lock:
                open_loops = {each: way for each, way in self._loops.items() if not each.is_closed()}
                self._loops = open_loops | {loop: open_loops.get(loop) or LoopOutcomes(loop)}
                known = self._loops[loop]
        return known

    def _admit(self, event: OutgoingEvent, tell: Callable[[Outcome], None]) -> ThumbloopError | None:
        """Puts it into the queue, or says why not."""
        size, most = len(event.value), self._settings.max_event_bytes
        if size > most:
            return _too_large(event, f"at most {most} bytes are taken")
        pending = _Pending(event=event, deadline=time.monotonic() + self._settings.ack_timeout_s, tell=tell)
        with self._lock:
            if self._closing:
                return Unavailable("This publisher is closed.", reason="PUBLISHER_CLOSED")
            if self._unfinished >= self._settings.max_in_flight:
                return Busy(
                    f"{self._unfinished} events wait for Kafka's acknowledgement, which is the bound "
                    "(THUMBLOOP_BUS__MAX_IN_FLIGHT). Come again later.",
                    reason="TOO_MUCH_IN_FLIGHT",
                    retry_after=RETRY_AFTER_S,
                )
            self._unfinished += 1
            self._admitted += 1
            pending.number = self._admitted
            _drop_settled(self._by_deadline)
            self._queue.append(pending)
            self._by_deadline.append(pending)
            self._work.notify()
            if self._watches_nothing:
                self._watches_nothing = False
                self._timing.notify()
        return None

    def _finish(self, pending: _Pending, outcome: Outcome) -> None:
        """Kafka's client is done with it: frees its place and, unless the deadline came first, tells of the outcome."""
        with self._lock:
            self._free_place()
            pending.holder = None
            late, pending.settled = pending.settled, True
        if not late:
            pending.tell(outcome)

    def _free_place(self) -> None:
        """Called under the lock."""
        self._unfinished -= 1
        if self._unfinished == 0:
            self._drained.notify_all()

    # --- the hand-over thread

    def _hand_over_all(self) -> None:
        while self._wait_for_work():
            if not self._ready_producer():
                with self._lock:
                    self._work.wait_for(lambda: self._stopped, RECONNECT_INTERVAL_S)
                continue
            while (pending := self._next()) is not None:
                self._hand_over(pending)

    def _wait_for_work(self) -> bool:
        """True: there is an event to send, or a producer to make. False: all is over."""
        with self._lock:
            self._work.wait_for(
                lambda: self._stopped or self._queue or self._again or self._broken or self._producer is None
            )
            return not self._stopped

    def _ready_producer(self) -> bool:
        """Makes a producer where there is none, or none that works."""
        if self._producer is not None and self._broken:
            # Closing first ends what the old one still tries, so that every event of it that must go again is known.
            _close_producer(self._producer, CLOSE_BROKEN_S)
            with self._lock:
                self._again = deque(sorted(self._again, key=lambda pending: pending.number))
                self._producer = None
        if self._producer is None:
            try:
                producer = self._connection.producer(self._client_id)
            except Unavailable:
                return False
            with self._lock:
                stopped = self._stopped
                if not stopped:
                    self._producer, self._broken = producer, False
            if stopped:
                _close_producer(producer, 0.0)
                return False
        return True

    def _next(self) -> _Pending | None:
        """The next event whose deadline has not passed; those that went wrong with a broken producer come first.
        None: there is none, or no producer to give it to.
        """
        with self._lock:
            if self._stopped or self._broken:
                return None
            for queue in (self._again, self._queue):
                while queue:
                    pending = queue.popleft()
                    if not pending.settled:
                        pending.holder = self._producer
                        return pending
            return None

    def _hand_over(self, pending: _Pending) -> None:
        event, producer = pending.event, pending.holder
        try:
            sent = producer.send(
                self._connection.full_name(event.topic),
                key=event.key.encode(),
                value=event.value,
                headers=list(event.headers.items()),
            )
        except MessageSizeTooLargeError:  # refused by the client itself, which stays whole
            self._finish(pending, _too_large(event, "its key and headers need more room than is left"))
        except Exception as error:  # every failure of the client becomes the event's outcome
            self._refused(error, pending, producer)
        else:
            sent.add_callback(self._acknowledged, pending)
            sent.add_errback(lambda error: self._refused(error, pending, producer))

    def _acknowledged(self, pending: _Pending, metadata: Any) -> None:
        event = pending.event
        record = Record(
            place=self._connection.place(metadata.topic, metadata.partition),
            offset=metadata.offset,
            key=event.key,
            value=event.value,
            headers=event.headers,
            timestamp=datetime.fromtimestamp(metadata.timestamp / 1000, UTC),
        )
        self._finish(pending, record)

    def _refused(self, error: BaseException, pending: _Pending, producer: Any) -> None:
        """Decides what an error of the client means for its event, and for the producer.

        A producer breaks at the first MESSAGE_TOO_LARGE (its batch holds one event by then, larger ones were split)
        and gives the same error to all that it still held, which is innocent and goes again until its deadline. It
        breaks, too, where its time runs out: for a batch, or for the metadata without which it takes no event.
        """
        if isinstance(error, KafkaTimeoutError):
            self._mark_broken(producer)
        if isinstance(error, MessageSizeTooLargeError) and self._mark_broken(producer):
            self._finish(pending, _too_large(pending.event, "Kafka's topic takes less (max.message.bytes)"))
        elif not isinstance(error, KafkaError) or error.retriable or isinstance(error, AuthorizationError):
            self._finish(pending, self._connection.unavailable(f"sending to {pending.event.topic}", error))
        else:
            self._mark_broken(producer)
            self._send_again(pending, error)

    def _send_again(self, pending: _Pending, error: BaseException) -> None:
        with self._lock:
            hopeless = pending.settled or self._stopped
            if not hopeless:
                pending.holder = None
                self._again.append(pending)
                self._work.notify()
        if hopeless:
            self._finish(pending, self._connection.unavailable(f"sending to {pending.event.topic}", error))

    def _mark_broken(self, producer: Any) -> bool:
        """Whether it was whole until now."""
        with self._lock:
            return self._break(producer)

    def _break(self, producer: Any) -> bool:
        """Called under the lock."""
        was_whole = producer is self._producer and not self._broken
        if was_whole:
            self._broken = True
            self._work.notify()
        return was_whole

    # --- the deadline thread

    def _watch_deadlines(self) -> None:
        while True:
            with self._lock:
                if self._stopped:
                    return
                now = time.monotonic()
                expired = self._take_expired(now)
                self._break_holders(now)
                if not expired:
                    self._watches_nothing = not self._by_deadline
                    self._timing.wait(self._until_next(now))
            for pending in expired:
                pending.tell(self._connection.unavailable(f"sending to {pending.event.topic}"))

    def _take_expired(self, now: float) -> list[_Pending]:
        """All have the same time-out, so the queues are in the order of deadlines: what expired stands at their heads,
        and leaves them here, for without a producer nobody else takes anything out of them.
        """
        expired = []
        while self._by_deadline and (self._by_deadline[0].settled or self._by_deadline[0].deadline <= now):
            pending = self._by_deadline.popleft()
            if not pending.settled:
                pending.settled = True
                expired.append(pending)
                if pending.holder is None:
                    self._free_place()
                else:
                    self._overdue.append(pending)
        for queue in (self._again, self._queue):
            _drop_settled(queue)
        return expired

    def _break_holders(self, now: float) -> None:
        """A producer gets no event past its deadline, and gives up each within `ack_timeout_s`: one that holds an event
        for longer will hold it for ever, and its place in the bound with it.
        """
        while self._overdue:
            first = self._overdue[0]
            if first.holder is not None:
                if first.deadline + self._settings.ack_timeout_s > now:
                    return
                self._break(first.holder)
            self._overdue.popleft()

    def _until_next(self, now: float) -> float | None:
        """Seconds until there is something to do for the deadline thread; None: nothing is known."""
        times = []
        if self._by_deadline:
            times.append(self._by_deadline[0].deadline)
        if self._overdue:
            times.append(self._overdue[0].deadline + self._settings.ack_timeout_s)
        return min(times) - now if times else None

    def _fail_rest(self) -> None:
        """After a close that ran out of time."""
        with self._lock:
            rest = [pending for pending in self._by_deadline if not pending.settled]
            for pending in rest:
                pending.settled = True
        for pending in rest:
            pending.tell(Unavailable("The publisher was closed before Kafka had it.", reason="PUBLISHER_CLOSED"))


def _drop_settled(queue: deque[_Pending]) -> None:
    """From the head on, up to the first whose outcome is open. Called under the lock."""
    while queue and queue[0].settled:
        queue.popleft()


def _tell_future(future: Future[Record], outcome: Outcome) -> None:
    if isinstance(outcome, Record):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _too_large(event: OutgoingEvent, bound: str) -> InvalidInput:
    return InvalidInput(
        f"An event of {len(event.value)} bytes for {event.topic} is too large: {bound}. "
        "Make it smaller, or keep the large part in the object store.",
        reason="EVENT_TOO_LARGE",
        field="value",
    )


def _close_producer(producer: Any, timeout_s: float) -> None:
    """Closes within the time. The client's own `close` gives up, its thread still running, when events are left."""
    try:
        producer.close(timeout=timeout_s)
    except KafkaTimeoutError:
        producer._sender.force_close()
        producer._sender.join(1.0)
