"""A key ring that may change while a room runs, so that keys of signatures are rotated without a restart.

The file is looked at again once a second. Every key in it is accepted at once; a new one signs only when it is `SETTLE`
old, or alone, since other replicas may not have seen it yet. So: add a second key to the file, wait until every replica
signs with it (twice `SETTLE`), and remove the first when what it signed has expired.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from services.shared.domain.errors import Misconfigured
from services.shared.domain.events import Clock
from services.shared.secrets import Key, KeyRing, KeyUse, load, load_or_create, path_of
from services.shared.telemetry.log import get_logger

SETTLE = timedelta(minutes=5)
"""Longer than a cluster takes to bring a changed Secret to every pod."""
LOOK_AGAIN_S = 1.0

_log = get_logger()


class FollowedRing:
    """The live keys of one use, as they are on disk now. Thread-safe."""

    def __init__(
        self, folder: Path, use: KeyUse, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes the key ring where there is none. Raises Misconfigured where it cannot be read."""
        self._folder = folder
        self._use = use
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen = self._mark()
        self._ring = load_or_create(folder, use, clock)
        self._looked = monotonic()

    @property
    def keys(self) -> tuple[Key, ...]:
        """All that are accepted, newest first."""
        return self._newest_ring().keys

    @property
    def signing(self) -> Key:
        """The newest key that every replica knows by now."""
        keys, settled_before = self.keys, self._clock() - SETTLE
        return next((key for key in keys if key.created_time <= settled_before), keys[-1])

    def by_id(self, key_id: str) -> Key | None:
        """The live key of that name."""
        return self._newest_ring().by_id(key_id)

    def _newest_ring(self) -> KeyRing:
        """The ring as it is on disk; a damaged file is told, and the last good ring stays."""
        with self._lock:
            if self._monotonic() - self._looked >= LOOK_AGAIN_S:
                self._looked = self._monotonic()
                mark = self._mark()
                if mark is not None and mark != self._seen:
                    self._seen = mark
                    self._read_again()
            return self._ring

    def _read_again(self) -> None:
        try:
            self._ring = load(self._folder, self._use)
        except Misconfigured as error:
            _log.error("keys_unusable", use=self._use, message=error.message)
        else:
            _log.info("keys_changed", use=self._use, keys=[key.id for key in self._ring.keys])

    def _mark(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None: it is not there."""
        try:
            found = path_of(self._folder, self._use).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
