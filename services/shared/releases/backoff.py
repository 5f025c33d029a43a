"""When to try again."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Waits `first_s` after a failure and twice as long after each further one, at most `max_s` seconds."""

    def __init__(self, *, first_s: float, max_s: float, monotonic: Callable[[], float]) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._monotonic = monotonic
        self._delay_s = first_s
        self._ready_at: float | None = None

    def failed(self) -> float:
        """Notes a failure; gives the seconds to wait."""
        delay_s = self._delay_s
        self._ready_at = self._monotonic() + delay_s
        self._delay_s = min(2 * delay_s, self._max_s)
        return delay_s

    def reset(self) -> None:
        """Notes a success, or something new to try: ready at once."""
        self._delay_s = self._first_s
        self._ready_at = None

    def remaining_s(self) -> float:
        """Seconds until the next attempt; 0: now."""
        return 0.0 if self._ready_at is None else max(0.0, self._ready_at - self._monotonic())
