"""An answer that costs the more to compute the more the store holds, kept for a while.

How long is measured, not set: a computation that took a millisecond is repeated at nearly every call, one that took a
second is good for twenty. So whoever asks, and however often, computing takes a bounded share of the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.shared.domain.events import Clock

TIMES_ITS_COST = 20
"""An answer serves so many times as long as it took: one core is busy with it for a twentieth of the time at most."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class _Kept(Generic[Answer]):
    """An answer, and when it serves; a clock that was set back is before that."""

    answer: Answer
    since: datetime
    until: datetime


class Remembered(Generic[Answer]):
    """Safe from any thread; one computes, and the others wait for it."""

    def __init__(self, compute: Callable[[datetime], Answer], *, clock: Clock, least: timedelta = timedelta(0)) -> None:
        """`compute` is told the time; `least`: an answer serves at least so long."""
        self._compute = compute
        self._clock = clock
        self._least = least
        self._lock = threading.Lock()
        self._kept: _Kept[Answer] | None = None

    def __call__(self) -> Answer:
        """The answer, computed now or a while ago. Raises what computing raises, and keeps what it had then."""
        with self._lock:
            begun = self._clock()
            if self._kept is None or not self._kept.since <= begun < self._kept.until:
                answer = self._compute(begun)
                ended = self._clock()
                until = ended + max(self._least, TIMES_ITS_COST * (ended - begun))
                self._kept = _Kept(answer=answer, since=begun, until=until)
            return self._kept.answer
