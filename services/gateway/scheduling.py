"""How Linux lets the gateway's threads take turns where they share a core.

A thread that becomes ready usually interrupts the one that runs. The HTTP server's thread becomes ready twice a request
(something came; an answer is to go out), and would so cut the event loop's work into pieces of a tenth of a
millisecond. Under SCHED_BATCH (sched(7)) it waits until the loop rests or its time slice, a few milliseconds, is over,
and then does all that has gathered. Between threads that have cores of their own nothing changes. Other processes that
want the same core are not interrupted either: beside two that never rest, feedback's p99 is a few slices longer.
"""

from __future__ import annotations

import os
from contextlib import suppress


def let_threads_finish_their_turns() -> None:
    """Call once, before there are threads, which inherit it. Does nothing where the system has no such policy, or
    forbids it.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
