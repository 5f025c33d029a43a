"""Ends process groups whose owner was killed.

Run as a script with a pipe on standard input that its owner alone holds open. Lines `+PGID` and `-PGID` say which
groups live. When the pipe ends, however the owner died, every group still noted gets SIGKILL. It knows nothing of
Thumbloop and imports the standard library's core alone, so that it starts in milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable


def guard(lines: Iterable[str]) -> None:
    """Follows the lines until they end, then kills what is left."""
    groups: set[int] = set()
    for line in lines:
        (groups.add if line[:1] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    guard(sys.stdin)
