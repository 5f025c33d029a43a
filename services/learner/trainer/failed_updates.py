"""Updates that fail for a reason that nobody foresaw, and which experiences are given up for it.

Such a failure is a bug, a broken machine, or a batch that cannot be learned from, and nobody can tell which from one
case. A batch that is simply given back would be claimed again, for ever. So experiences whose updates have failed
`tries` times are given up with the reason; but when updates fail `most_in_a_row` times whatever the batch, no batch is
to blame, and the trainer ends with what was raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.learner.trainer.pacing import Stopped
from services.shared.domain.errors import InvalidInput, ThumbloopError


class FailedUpdates:
    """Counts failures since the last success. What it counts is lost with the process, which a failure does not end."""

    def __init__(self, what: str, *, tries: int = 2, most_in_a_row: int = 4) -> None:
        """`what` fails, in the words of the status."""
        self._what = what
        self._tries = tries
        self._most_in_a_row = most_in_a_row
        self._of_rollout: Counter[str] = Counter()
        self._in_a_row = 0
        self.last = ""
        """What the last update failed of; empty once one has succeeded."""

    def note(self, rollout_ids: Sequence[str], error: Exception) -> list[str]:
        """The rollouts of the failed batch that are to be given up. Raises the error where it is no batch's fault."""
        self._in_a_row += 1
        if self._in_a_row >= self._most_in_a_row:
            raise error
        self.last = f"the last {self._what} failed: {type(error).__name__}: {error}"
        self._of_rollout.update(rollout_ids)
        given_up = [rollout_id for rollout_id in rollout_ids if self._of_rollout[rollout_id] >= self._tries]
        for rollout_id in given_up:
            del self._of_rollout[rollout_id]
        return given_up

    def succeeded(self) -> None:
        """Updates work; all that failed before are tried afresh."""
        self._of_rollout.clear()
        self._in_a_row = 0
        self.last = ""


def foreseen(error: Exception) -> bool:
    """Whether others answer for it: a stop, something away, a new leader. Input that another room refused is ours."""
    return isinstance(error, (Stopped, ThumbloopError)) and not isinstance(error, InvalidInput)
