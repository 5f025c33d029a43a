"""Keeps a run's own broker running: starts it again when it dies. Meanwhile the gateway's disk takes feedback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.embedded.brokers import Broker
from services.shared.domain.errors import Unavailable

BACKOFF_S = (0.2, 1.0, 2.0, 5.0)
STABLE_AFTER_S = 30.0
MAX_QUICK_DEATHS = 8


class BrokerKeeper:
    """One thread calls `look`, at intervals."""

    def __init__(self, broker: Broker, *, report: Callable[[str], None], stopping: threading.Event) -> None:
        """`stopping`: nobody waits for the broker any more, and it is not started again."""
        self.broker = broker
        self.restarts = 0
        self._report = report
        self._stopping = stopping
        self._serves_since: float | None = None
        self._quick_deaths = 0

    def start(self, timeout_s: float) -> None:
        """As `Broker.start`."""
        self._serves_since = None
        self.broker.start(timeout_s=timeout_s, given_up=self._stopping.is_set)
        self._serves_since = time.monotonic()

    def look(self, timeout_s: float) -> str | None:
        """Starts a dead broker again, after a back-off. Why that is given up, if it is."""
        if self.broker.is_running():
            return None
        stable = self._serves_since is not None and time.monotonic() - self._serves_since > STABLE_AFTER_S
        self._quick_deaths = 0 if stable else self._quick_deaths + 1
        if self._quick_deaths > MAX_QUICK_DEATHS:
            return f"The broker keeps dying. Its log says why: {self.broker.log_path}"
        self._report(f"the broker ended; starting it again (log: {self.broker.log_path})")
        if self._stopping.wait(BACKOFF_S[min(self._quick_deaths, len(BACKOFF_S) - 1)]):
            return None
        self.restarts += 1
        try:
            self.start(timeout_s)
        except Unavailable as error:
            self._report(error.message)
        return None
