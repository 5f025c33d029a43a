"""Embedded broker: when what the learner's store lacks is sent again, and when that is in vain.

Each further time comes after twice as long, `MOST_SENT` times in all. What the store lacks even then it will hardly
ever have: ingest puts it aside, each time as one more dead letter, and too many of these end ingest. (That the broker
lost its tail five times, each within a second of a sending, is no likely reason.)
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from services.shared.releases.backoff import Backoff

MOST_SENT = 4
LAST_RESEND_S = 600.0


@dataclass(kw_only=True)
class _Resend:
    backoff: Backoff
    times: int = 0
    in_vain: bool = False


class Resends:
    """By position. Nothing of it outlives the process: the next one begins anew."""

    def __init__(self, *, first_s: float, monotonic: Callable[[], float]) -> None:
        self._first_s = first_s
        self._monotonic = monotonic
        self._items: dict[int, _Resend] = {}

    @property
    def in_vain(self) -> int:
        """Items that are no longer sent."""
        return sum(resend.in_vain for resend in self._items.values())

    def __contains__(self, position: int) -> bool:
        return position in self._items

    def begin(self, position: int) -> None:
        """It was sent for the first time."""
        backoff = Backoff(first_s=self._first_s, max_s=LAST_RESEND_S, monotonic=self._monotonic)
        backoff.failed()
        self._items[position] = _Resend(backoff=backoff)

    def is_due(self, position: int) -> bool:
        """Whether it is to be sent again now."""
        resend = self._items[position]
        return resend.times < MOST_SENT and resend.backoff.remaining_s() == 0

    def again(self, position: int) -> float:
        """It was sent again. Gives the seconds after which it has had its time."""
        resend = self._items[position]
        resend.times += 1
        return resend.backoff.failed()

    def give_up(self, position: int) -> bool:
        """The store lacks it still. True, once: it was sent for the last time, and has had its time."""
        resend = self._items.get(position)
        if resend is None or resend.in_vain or resend.times < MOST_SENT or resend.backoff.remaining_s() > 0:
            return False
        resend.in_vain = True
        return True

    def drop(self, position: int) -> None:
        """It is stored. Twice is once."""
        self._items.pop(position, None)

    def keep_only(self, positions: Set[int]) -> None:
        """All others have left the disk."""
        self._items = {position: resend for position, resend in self._items.items() if position in positions}
