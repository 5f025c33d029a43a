"""One trainer at a time: a lease that a thread keeps for as long as this process trains.

What a trainer writes is fenced by the leader's epoch (`state.fencing`). That does not keep two trainers apart that work
under one epoch, as roles that run apart might; this lease does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.learner.releaser.leadership import Leadership
from services.shared.domain.errors import Unavailable
from services.shared.telemetry.log import get_logger

NAME = "trainer"
"""The lease."""

LOOK_S = 0.5

_log = get_logger(role="trainer")


class Post:
    """Holds a lease that has been taken."""

    def __init__(self, lease: Leadership, on_failure: Callable[[BaseException], None]) -> None:
        self._lease = lease
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keeps it from now on."""
        self._thread = threading.Thread(target=self._run, name="trainer-post", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Lets another train at once. Twice is once."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10.0)
        self._lease.give_back()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(LOOK_S):
                try:
                    self._lease.keep()
                except Unavailable as error:
                    _log.warning("post_waits", reason=error.reason, error=error.message)
        except BaseException as error:  # another trains: the process must end with a clear word
            self._on_failure(error)
