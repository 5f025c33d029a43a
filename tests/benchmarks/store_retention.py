"""Whether retention keeps a store bounded: traffic for many retentions, and what the store takes on disk all along.

Experiences are ingested, joined and claimed by the real write path; after every few slices retention takes its turns.
Retention must delete faster than the rest stores, or nothing would be bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from services.learner.state.rollouts_retention import RolloutsRetention
from tests.benchmarks.store_places import Places, fill, stored_bytes
from tests.benchmarks.store_rates import Side
from tests.benchmarks.store_rows import MS_APART
from tests.support.facts import at

KEPT = 20_000
"""Experiences of one retention."""

RETENTIONS = 6
SETTLED = 3
"""Retentions after which the store has its size; what it has at the end is compared with that."""

SLICE = 500
GRACE = timedelta(hours=1)
"""How far the clock is ahead of the newest experience."""

PROTOCOL = {"kept": KEPT, "retentions": RETENTIONS, "settled": SETTLED, "slice": SLICE}


def measure_retention(places: Places, tell: Callable[[str], None]) -> dict[str, float]:
    """Bytes after `SETTLED` retentions and after all, and experiences a second of the write path and of retention."""
    places.remove("store_retention")
    database = places.open("store_retention")
    try:
        fill(database, 0, lambda loaded: None, indexes_last=False)
        side = Side(database, 0)
        keep_s = KEPT * MS_APART / 1000
        keeper = RolloutsRetention(database, clock=side.clock, epoch=side.epoch, keep_s=keep_s, rated_examples=1)
        sizes: list[int] = []
        deleted, spent_s = 0, 0.0
        for begin in range(0, RETENTIONS * KEPT, SLICE):
            side.slice(begin, begin + SLICE)
            side.clock.now = at((begin + SLICE) * MS_APART / 1000) + GRACE
            begun = time.perf_counter()
            while gone := keeper.step():
                deleted += gone
            spent_s += time.perf_counter() - begun
            if (begin + SLICE) % KEPT == 0:
                sizes.append(stored_bytes(database))
                tell(f"retention {len(sizes)}: {sizes[-1] / 1e6:.1f} MB")
    finally:
        database.close()
    places.remove("store_retention")
    written_s = sum(spent.seconds for spent in side.spent.values())
    return {
        "retention_experiences": RETENTIONS * KEPT,
        "retention_settled_mb": sizes[SETTLED - 1] / 1e6,
        "retention_end_mb": sizes[-1] / 1e6,
        "retention_growth": sizes[-1] / sizes[SETTLED - 1],
        "retention_stored_per_s": RETENTIONS * KEPT / written_s,
        "retention_deleted_per_s": deleted / spent_s,
        "retention_speed_ratio": (deleted / spent_s) / (RETENTIONS * KEPT / written_s),
    }
