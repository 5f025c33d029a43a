"""What services say in their logs, which outlive a SIGKILL as no metric does. They log JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEEDBACK_SENT_AGAIN = "feedback_sent_again"
"""Of the gateway: one item."""
ROLLOUTS_SENT_AGAIN = "rollouts_sent_again"
"""Of the generator: so many `rollouts`."""
PARTITION_READ_AGAIN = "partition_read_again"
"""Of the learner: a partition lacks what had been read from it."""


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """`lost_tails`: how often a partition had lost what the learner had read from it already. What was lost unread
    shows in `sent_again` alone: feedback and rollouts that the store lacked.
    """

    lost_tails: int = 0
    sent_again: int = 0


def read_repairs(paths: Iterable[Path]) -> Repairs:
    """From all services' logs. Lines that a kill cut off are passed by."""
    lost_tails = sent_again = 0
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for entry in map(_entry, lines):
                event = entry.get("event")
                lost_tails += event == PARTITION_READ_AGAIN
                sent_again += event == FEEDBACK_SENT_AGAIN
                sent_again += int(entry["rollouts"]) if event == ROLLOUTS_SENT_AGAIN else 0
    return Repairs(lost_tails=lost_tails, sent_again=sent_again)


def _entry(line: str) -> dict[str, Any]:
    """Empty: nothing that is looked for."""
    if not any(name in line for name in (FEEDBACK_SENT_AGAIN, ROLLOUTS_SENT_AGAIN, PARTITION_READ_AGAIN)):
        return {}
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
