"""Deleting what is too old, in rounds: one bounded page a turn, and some time between the rounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.learner.ports import RATED_EXAMPLES
from services.learner.state.experience_reader import oldest_rated_example
from services.shared.domain.events import Clock
from services.shared.store.database import Database

PAGE = 500
"""Rows that one turn looks at."""

ROUND_S = 60.0
"""Between the end of a round and the next."""

RoundT = TypeVar("RoundT")


class RetentionRounds(ABC, Generic[RoundT]):
    """Deletes under one epoch. One thread calls `step`. Whoever inherits says what a round is and what a turn of it
    does."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        epoch: int,
        keep_s: float,
        rated_examples: int = RATED_EXAMPLES,
        page: int = PAGE,
    ) -> None:
        """`keep_s`: age from which on something may go. `rated_examples`: so many newest thumbs train the reward
        model, and what it needs of them stays."""
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._keep = timedelta(seconds=keep_s)
        self._rated_examples = rated_examples
        self._page = page
        self._round: RoundT | None = None
        self._next_round: datetime | None = None

    @property
    def between_rounds(self) -> bool:
        """The last round has ended, and the next has not begun."""
        return self._round is None

    def step(self) -> int:
        """One turn: a page of the round, or nothing until the next one is due. How much it deleted.

        Raises Fenced when a newer leader has taken over.
        """
        now = self._clock()
        if self._round is None:
            if self._next_round is not None and now < self._next_round:
                return 0
            with self._database.read() as connection:
                thumbs_since = oldest_rated_example(connection, newest=self._rated_examples)
            self._round = self._begin(now, thumbs_since)
        deleted = self._turn(self._round)
        if self._is_over(self._round):
            self._round, self._next_round = None, now + timedelta(seconds=ROUND_S)
        return deleted

    @abstractmethod
    def _begin(self, now: datetime, thumbs_since: datetime | None) -> RoundT:
        """A round at this time. `thumbs_since`: thumbs accepted then or later train the reward model; None: all do."""

    @abstractmethod
    def _turn(self, at: RoundT) -> int:
        """The next page of a round; how much it deleted."""

    @abstractmethod
    def _is_over(self, at: RoundT) -> bool:
        """Whether the turn was the round's last."""
