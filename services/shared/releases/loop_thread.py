"""A thread that repeats one step until it is told to stop, and that no error ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.shared.domain.errors import Unavailable
from services.shared.releases.backoff import Backoff
from services.shared.telemetry.log import get_logger

_log = get_logger()


class LoopThread:
    """Repeats `step`; after an error it waits, longer each time, up to `retry_max_s` seconds. `close` runs at the end,
    in the same thread.
    """

    def __init__(self, name: str, step: Callable[[], None], close: Callable[[], None], retry_max_s: float) -> None:
        self._name = name
        self._step = step
        self._close = close
        self._stopped = threading.Event()
        self._backoff = Backoff(first_s=0.1, max_s=retry_max_s, monotonic=time.monotonic)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Asks it to end and waits, at most so long. Twice is once."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._round()
        finally:
            self._close()

    def _round(self) -> None:
        try:
            self._step()
        except Exception as error:
            delay_s = self._backoff.failed()
            known = isinstance(error, Unavailable)
            _log.warning("step_failed", thread=self._name, message=str(error), retry_s=delay_s, exc_info=not known)
            self._stopped.wait(delay_s)
        else:
            self._backoff.reset()
