"""From what a caller presents to whom it is."""

from __future__ import annotations

from collections.abc import Callable

from services.shared.access.keys import parse_key, proves
from services.shared.access.scopes import Principal
from services.shared.access.snapshot import AccessSnapshot
from services.shared.domain.errors import Unauthenticated, Unavailable
from services.shared.domain.events import Clock

RETRY_AFTER_S = 2.0


class KeyAuthenticator:
    """Checks API keys against the newest snapshot that this room has. Safe from any thread; never blocks."""

    def __init__(self, *, snapshot: Callable[[], AccessSnapshot | None], clock: Clock) -> None:
        """`snapshot` gives None while none was ever had: then nobody is let in."""
        self._snapshot = snapshot
        self._clock = clock

    def authenticate(self, presented: str) -> Principal:
        """Whom a key speaks for.

        Raises Unauthenticated if it is malformed, unknown, revoked or expired, and Unavailable while no list of keys
        was ever had.
        """
        key_id, secret = parse_key(presented)
        snapshot = self._snapshot()
        if snapshot is None:
            raise Unavailable(
                "This service has no list of API keys yet, because the learner has not answered since it was set up. "
                "Come again.",
                reason="API_KEYS_UNKNOWN",
                retry_after=RETRY_AFTER_S,
            )
        key = snapshot.keys.get(key_id)
        if key is None or not proves(secret, key.secret_digest):
            raise Unauthenticated(
                f"API key {key_id} is unknown or was revoked. Ask the operator for another one "
                "(`thumbloop keys list` shows all; a new key works everywhere within seconds).",
                reason="API_KEY_UNKNOWN",
                field="Authorization",
            )
        if key.expire_time is not None and key.expire_time <= self._clock():
            raise Unauthenticated(
                f"API key {key_id} expired at {key.expire_time.isoformat(timespec='seconds')}. Ask the operator for "
                "another one.",
                reason="API_KEY_EXPIRED",
                field="Authorization",
            )
        return key.principal
