"""Rollouts that the trainer has in memory, so that a person who is forgotten is forgotten there too.

Whoever carries out the order *abandons* rollouts: from then on the trainer's next safe point gives up what it is doing
with them, its next turn drops what the learner keeps of them, and the order counts as carried out when both are done.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from services.learner.forgetting.lineage import FORGOTTEN
from services.shared.domain.errors import FailedPrecondition


class HeldRollouts:
    """Written by the trainer's thread, asked by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: frozenset[str] | None = frozenset()
        self._abandoned = False
        self._kept: frozenset[str] = frozenset()
        self._to_drop: frozenset[str] = frozenset()

    def about_to_hold(self) -> None:
        """The trainer is reading rollouts, and cannot say yet which; until `hold`, it may have any."""
        with self._lock:
            self._held, self._abandoned = None, False

    def hold(self, rollout_ids: Collection[str]) -> None:
        """The trainer has these, and no others, in memory."""
        with self._lock:
            self._held, self._abandoned = frozenset(rollout_ids), False

    def let_go(self) -> None:
        """It has none."""
        self.hold(())

    def keep(self, rollout_ids: Collection[str]) -> None:
        """The learner keeps something of these from one batch to the next, and of no others."""
        with self._lock:
            self._kept = frozenset(rollout_ids)
            self._to_drop &= self._kept

    @property
    def to_drop(self) -> frozenset[str]:
        """Of what is kept: what the learner is to drop."""
        return self._to_drop

    def abandon(self, rollout_ids: Collection[str]) -> bool:
        """Whether the trainer has one of these, or may have; what it is known to have, it is to give up, all of it."""
        with self._lock:
            self._to_drop |= self._kept.intersection(rollout_ids)
            if self._held is None:
                return True
            found = not self._held.isdisjoint(rollout_ids)
            self._abandoned = self._abandoned or found
            return found or bool(self._to_drop)

    def check(self) -> None:
        """Raises FailedPrecondition (`FORGOTTEN`) where the trainer is to give up."""
        if self._abandoned:
            raise FailedPrecondition(
                "somebody whose rollouts are in this batch has been forgotten; the rest is given back.",
                reason=FORGOTTEN,
            )
