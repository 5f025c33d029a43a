"""An answer that costs the more to compute the more the store holds, kept for a while.

How long is measured, not set: a computation that took a millisecond is repeated at nearly every call, one that took a
second is good for twenty. So whoever asks, and however often, computing takes a bounded share of the time. Nor does it
hold others up: while one computes, the rest get the answer there was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.shared.domain.errors import Busy
from services.shared.domain.events import Clock

TIMES_ITS_COST = 20
"""An answer serves so many times as long as it took: one core is busy with it for a twentieth of the time at most."""

FIRST_WAIT_S = 1.0
"""So long one waits for the first answer while another computes it: less than callers wait for theirs."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class _Kept(Generic[Answer]):
    """An answer, and when it serves; a clock that was set back is before that."""

    answer: Answer
    since: datetime
    until: datetime


class Remembered(Generic[Answer]):
    """Safe from any thread; one computes, and the others do not wait for it but for the very first answer."""

    def __init__(
        self,
        compute: Callable[[datetime], Answer],
        *,
        clock: Clock,
        least: timedelta = timedelta(0),
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """`compute` is told the time; `least`: an answer serves at least so long."""
        self._compute = compute
        self._clock = clock
        self._least = least
        self._first_wait_s = first_wait_s
        self._lock = threading.Lock()
        self._kept: _Kept[Answer] | None = None

    def __call__(self) -> Answer:
        """The answer, computed now or a while ago. Raises what computing raises, and keeps what it had then; Busy
        while another computes the first one, and for long."""
        kept = self._kept
        if kept is not None and self._serves(kept, self._clock()):
            return kept.answer
        if not self._lock.acquire(timeout=0 if kept else self._first_wait_s):
            if kept is None:
                raise Busy("This is being computed for the first time; ask again in a moment.", retry_after=1.0)
            return kept.answer
        try:
            return self._renewed()
        finally:
            self._lock.release()

    def _renewed(self) -> Answer:
        """Under the lock: another may have computed it meanwhile."""
        begun, kept = self._clock(), self._kept
        if kept is None or not self._serves(kept, begun):
            answer = self._compute(begun)
            ended = self._clock()
            until = ended + max(self._least, TIMES_ITS_COST * (ended - begun))
            self._kept = kept = _Kept(answer=answer, since=begun, until=until)
        return kept.answer

    def _serves(self, kept: _Kept[Answer], now: datetime) -> bool:
        return kept.since <= now < kept.until
