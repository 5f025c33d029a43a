"""What the rooms of one deployment prove themselves with to one another: a secret that all of them have.

It comes from the key ring `service` in the secrets folder, which is one folder (one machine) or a mounted Secret with
the same content everywhere (a cluster), and travels as `Authorization: Bearer ts_<key id>_<secret>`. The ring is
followed, so that it is rotated without a restart; a key that no room presents any more can be removed at once.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from pathlib import Path

from services.shared.access.bearer import bearer
from services.shared.domain.events import Clock
from services.shared.followed_ring import FollowedRing
from services.shared.ids import utc_now
from services.shared.secrets import Key, KeyUse
from services.shared.settings import Settings

PREFIX = "ts_"


class ServiceCredential:
    """Presents the deployment's secret (`authorization`), and knows it when presented (`accepts`). Thread-safe."""

    def __init__(self, folder: Path, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Makes the key ring where there is none. Raises Misconfigured where it cannot be read."""
        self._ring = FollowedRing(folder, KeyUse.SERVICE, clock=clock, monotonic=monotonic)

    def authorization(self) -> str:
        """Value of the header or metadata entry `authorization`, for one call."""
        return bearer(_text(self._ring.signing))

    def accepts(self, presented: str) -> bool:
        """True if it is one of the ring's keys. Takes the same time whatever characters differ."""
        if not claims_service(presented):
            return False
        given = presented.encode()
        return any(hmac.compare_digest(given, _text(key).encode()) for key in self._ring.keys)


def claims_service(presented: str) -> bool:
    """True if it looks like a service credential, of whatever deployment."""
    return presented.startswith(PREFIX)


def service_credential(settings: Settings) -> ServiceCredential:
    """The credential of the deployment that the settings name."""
    return ServiceCredential(settings.secrets_dir, clock=utc_now)


def _text(key: Key) -> str:
    return f"{PREFIX}{key.id}_{key.secret.hex()}"
