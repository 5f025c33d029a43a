"""What the rooms of one deployment prove themselves with to one another: a secret that all of them have.

It comes from the key ring `service` in the secrets folder, which is one folder (one machine) or a mounted Secret with
the same content everywhere (a cluster), and travels as `Authorization: Bearer ts_<key id>_<secret>`.

*Rotation without a restart.* The file is looked at again while a room runs. Every key in it is accepted at once; a new
one is presented only when it is `SETTLE` old, or alone, since the others may not have seen it yet. So: add a second key
to the file, wait until every room uses it (twice `SETTLE`), remove the first.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from services.shared.access.bearer import bearer
from services.shared.domain.errors import Misconfigured
from services.shared.domain.events import Clock
from services.shared.ids import utc_now
from services.shared.secrets import Key, KeyRing, KeyUse, load_or_create
from services.shared.settings import Settings
from services.shared.telemetry.log import get_logger

PREFIX = "ts_"
SETTLE = timedelta(minutes=5)
"""Longer than a cluster takes to bring a changed Secret to every pod."""
LOOK_AGAIN_S = 1.0

_log = get_logger()


class ServiceCredential:
    """Presents the deployment's secret (`authorization`), and knows it when presented (`accepts`). Thread-safe."""

    def __init__(self, folder: Path, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Makes the key ring where there is none. Raises Misconfigured where it cannot be read."""
        self._folder = folder
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen = self._mark()
        self._ring = load_or_create(folder, KeyUse.SERVICE, clock)
        self._looked = monotonic()

    def authorization(self) -> str:
        """Value of the header or metadata entry `authorization`, for one call."""
        ring = self._newest_ring()
        settled = [key for key in ring.keys if key.created_time + SETTLE <= self._clock()]
        return bearer(_text(settled[0] if settled else ring.keys[-1]))

    def accepts(self, presented: str) -> bool:
        """True if it is one of the ring's keys. Takes the same time whatever characters differ."""
        if not claims_service(presented):
            return False
        given = presented.encode()
        return any(hmac.compare_digest(given, _text(key).encode()) for key in self._newest_ring().keys)

    def _newest_ring(self) -> KeyRing:
        """The ring as it is on disk, looked at once a second; a damaged file is told, and the last good ring stays."""
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
            self._ring = load_or_create(self._folder, KeyUse.SERVICE, self._clock)
        except Misconfigured as error:
            _log.error("service_keys_unusable", message=error.message)
        else:
            _log.info("service_keys_changed", keys=[key.id for key in self._ring.keys])

    def _mark(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None: it is not there."""
        try:
            found = (self._folder / f"{KeyUse.SERVICE}.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def claims_service(presented: str) -> bool:
    """True if it looks like a service credential, of whatever deployment."""
    return presented.startswith(PREFIX)


def service_credential(settings: Settings) -> ServiceCredential:
    """The credential of the deployment that the settings name."""
    return ServiceCredential(settings.secrets_dir, clock=utc_now)


def _text(key: Key) -> str:
    return f"{PREFIX}{key.id}_{key.secret.hex()}"
