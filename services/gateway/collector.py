"""Python's cyclic garbage collector, set for a process that keeps much and makes few cycles.

The gateway remembers tens of thousands of answers and statements. At its default thresholds the collector looks at all
of them every few thousand requests, to find nothing: that was a sixth of what a feedback request costs, and stops of a
tenth of a second. Reference counting frees what requests leave behind; cycles (of exceptions, mostly) die young.
"""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 20, 100)
"""Objects made and not freed before the youngest are looked at; rounds of a generation before the next older one."""


def keep_out_of_the_way() -> None:
    """Call once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
