"""Where the trainer may stop, pause and wait.

A *safe point* is a place where the work in hand may be given up: there a stop ends the cycle. A pause holds between two
turns of the cycle alone. Every wait has a deadline and wakes at once when the trainer is stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from services.learner.trainer.held import HeldRollouts

T = TypeVar("T")


class Stopped(Exception):
    """Unwinds the cycle to the thread's end."""


class Pacing:
    """Shared by the trainer's thread and those who steer it. `clock` gives seconds that only grow."""

    def __init__(
        self,
        *,
        paused: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = 0.1,
        held: HeldRollouts | None = None,
    ) -> None:
        """`paused` is asked before each turn, so that a pause kept in the store outlives a restart."""
        self._paused = paused
        self._clock = clock
        self._poll_s = poll_s
        self.held = held or HeldRollouts()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ends waits and, at the next safe point, the cycle."""
        self._stop.set()

    @property
    def paused(self) -> bool:
        """Training is to stand still."""
        return self._paused()

    def now(self) -> float:
        """Seconds, only good for differences."""
        return self._clock()

    def safe_point(self) -> None:
        """Raises Stopped where the trainer is to end, FailedPrecondition where what it holds has been forgotten."""
        if self._stop.is_set():
            raise Stopped
        self.held.check()

    def sleep(self, seconds: float) -> None:
        """Raises Stopped when woken by `stop`."""
        if self._stop.wait(seconds):
            raise Stopped

    def until(self, condition: Callable[[], T | None], *, timeout_s: float) -> T | None:
        """The first value of `condition` that is neither None nor False; None after `timeout_s`. Raises Stopped."""
        deadline = self._clock() + timeout_s
        while True:
            value = condition()
            if value is not None and value is not False:
                return value
            if self._clock() >= deadline:
                return None
            self.sleep(self._poll_s)
