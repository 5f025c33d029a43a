"""Token buckets: how often one caller may do a thing, in the long run and at once.

A bucket is kept as a single time, the *theoretical arrival time* of the generic cell rate algorithm (GCRA, ITU-T
I.371): the moment at which the bucket would be full again. A bucket that is full is the same as none, so callers who
went away cost nothing, and the number of buckets is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from services.shared.domain.errors import Busy


class TokenBuckets:
    """One bucket a key. Belongs to one thread."""

    def __init__(self, rate_per_s: float, burst: int, capacity: int, monotonic: Callable[[], float]) -> None:
        """Each key may do `burst` things at once and `rate_per_s` a second in the long run.

        At most `capacity` buckets are kept: beyond it the one that was longest unused is forgotten, which is as good
        as full.
        """
        self._interval_s = 1.0 / rate_per_s
        self._tolerance_s = (burst - 1) * self._interval_s
        self._capacity = capacity
        self._monotonic = monotonic
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Buckets that are kept."""
        return len(self._full_at)

    def take(self, key: str) -> None:
        """Takes one token. Raises Busy, with the seconds until there is one, and takes nothing then."""
        now = self._monotonic()
        full_at = max(self._full_at.get(key, now), now)
        wait_s = full_at - now - self._tolerance_s
        if wait_s > 1e-9:  # a sum of intervals may miss its exact value by a rounding
            raise Busy(
                f"Too many requests: at most {1 / self._interval_s:g} a second in the long run. "
                f"Come again in {wait_s:.3g} s.",
                reason="RATE_LIMITED",
                retry_after=wait_s,
            )
        self._full_at[key] = full_at + self._interval_s
        self._full_at.move_to_end(key)
        self._drop_full(now)

    def _drop_full(self, now: float) -> None:
        """Forgets what was longest unused: at most two a call where it is full again, else beyond the capacity."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._capacity:
                return
            del self._full_at[oldest]
