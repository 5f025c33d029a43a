"""Sends the newest value of each key, in a thread of its own, until it is taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from services.shared.domain.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from services.shared.releases.backoff import Backoff
from services.shared.releases.loop_thread import LoopThread
from services.shared.telemetry.log import get_logger

_log = get_logger()
_REFUSALS = (InvalidInput, NotFound, PermissionDenied, Unauthenticated)
"""Sending the same again would end the same."""

K = TypeVar("K")
V = TypeVar("V")


class BackgroundSender(Generic[K, V]):
    """`offer` never blocks. At most `max_waiting` keys wait; past that the oldest is dropped with a log line."""

    def __init__(
        self,
        name: str,
        send: Callable[[V], None],
        *,
        retry_first_s: float = 0.2,
        retry_max_s: float = 2.0,
        max_waiting: int = 1_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` has a deadline of its own and raises when it did not succeed."""
        self._name = name
        self._send = send
        self._max_waiting = max_waiting
        self._waiting: dict[K, V] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._backoff = Backoff(first_s=retry_first_s, max_s=retry_max_s, monotonic=monotonic)
        self._thread = LoopThread(name, self._round, lambda: None, retry_max_s)

    def offer(self, key: K, value: V) -> None:
        """Replaces what waits under the key."""
        with self._changed:
            self._waiting[key] = value
            if len(self._waiting) > self._max_waiting:
                dropped = next(iter(self._waiting))
                del self._waiting[dropped]
                _log.warning("send_dropped", sender=self._name, key=str(dropped))
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Keys that wait."""
        with self._changed:
            return len(self._waiting)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends after the call that runs, at most so long. Twice is once."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.stop(timeout_s)

    def send_waiting(self) -> None:
        """Tries each waiting key once, the oldest first, up to the first failure worth repeating."""
        with self._changed:
            batch = list(self._waiting.items())
        for key, value in batch:
            try:
                self._send(value)
            except _REFUSALS as error:
                _log.warning(
                    "send_refused", sender=self._name, key=str(key), reason=error.reason, message=error.message
                )
            except Exception as error:
                delay_s = self._backoff.failed()
                _log.info("send_failed", sender=self._name, key=str(key), message=str(error), retry_s=delay_s)
                return
            with self._changed:
                if self._waiting.get(key) is value:
                    del self._waiting[key]
        self._backoff.reset()

    def _round(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or bool(self._waiting), timeout=1.0)
            # After a failure: not at once, but a stop need not wait.
            self._changed.wait_for(lambda: self._stopping, timeout=self._backoff.remaining_s())
            if self._stopping:
                return
        self.send_waiting()
