"""How many may watch releases at a time, and for how long: each has a connection, and work at every change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.shared.domain.errors import Busy

RETRY_AFTER_S = 5.0


class Watchers:
    """The places at one port, so that nobody on the public one keeps an operator out. Belongs to one event loop."""

    def __init__(self, *, most: int, life_s: float) -> None:
        """`life_s`: a stream ends by itself after so long; who still watches opens another."""
        self.life_s = life_s
        self._most = most
        self._watching = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Held while one watches. Raises Busy when all are taken."""
        if self._watching >= self._most:
            raise Busy(
                f"{self._watching} watch releases here, which is the limit. Come again shortly, or ask"
                " GET /v1/releases now and then.",
                reason="TOO_MANY_WATCHERS",
                retry_after=RETRY_AFTER_S,
            )
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1
