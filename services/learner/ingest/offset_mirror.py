"""Offsets mirrored to Kafka, so that lag can be seen by whoever knows consumer groups (dashboards, autoscalers).

The truth is in SQL: nothing reads the mirror back, and a commit that fails is replaced by the next one. A thread of its
own does it, so that ingest never waits for a group coordinator.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from services.shared.bus.interface import GroupOffsets, Place
from services.shared.domain.errors import ThumbloopError
from services.shared.telemetry.log import get_logger

GROUP = "thumbloop-ingest"
INTERVAL_S = 2.0
STOP_TIMEOUT_S = 3.0

_log = get_logger(role="ingest")


class OffsetMirror:
    """`note` from the ingest thread; the newest offset of each partition is sent at intervals."""

    def __init__(self, offsets: GroupOffsets, *, interval_s: float = INTERVAL_S) -> None:
        self._offsets = offsets
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._noted: dict[Place, int] = {}
        self._sent: dict[Place, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, positions: Mapping[Place, int]) -> None:
        """What this process holds now, and where it is. Never blocks."""
        with self._lock:
            self._noted = dict(positions)

    def start(self) -> None:
        """Begins to send."""
        self._thread = threading.Thread(target=self._run, name="offset-mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sends what is left, within a bound. Twice is once."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def send(self) -> None:
        """Sends what has changed since the last time. Raises what the bus raises."""
        with self._lock:
            noted = dict(self._noted)
        changed = {place: offset for place, offset in noted.items() if self._sent.get(place) != offset}
        if changed:
            self._offsets.commit(changed)
        self._sent = noted

    def _run(self) -> None:
        failed = False
        while True:
            last = self._stopping.wait(self._interval_s)
            try:
                self.send()
                failed = False
            except ThumbloopError as error:
                if not failed:
                    _log.info("offsets_not_mirrored", error=error.message)
                failed = True
            if last:
                self._offsets.close()
                return
