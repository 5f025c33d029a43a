"""When a request may be sent again: only where doing it twice is doing it once."""

from __future__ import annotations

from tenacity import RetryCallState, retry_if_exception_type, stop_before_delay, wait_exponential_jitter
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from services.shared.domain.errors import Busy, DeadlineExceeded, ThumbloopError, Unavailable

PASSING: retry_base = retry_if_exception_type((Unavailable, Busy, DeadlineExceeded))
"""Errors that may be gone at the next attempt."""


class ServerAdvice(wait_base):
    """Waits as long as the server asked, else longer each time, from 0.1 to 5 seconds, with jitter."""

    def __init__(self) -> None:
        self._own = wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.1)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, ThumbloopError) else None
        return float(self._own(retry_state) if asked is None else asked)


def within(seconds: float) -> stop_base:
    """Gives up when so much time has passed, or would have before the next attempt."""
    return stop_before_delay(seconds)
