"""Rules that keep small, noisy batches from doing harm."""

import statistics
from collections.abc import Sequence


def has_contrast(rewards: Sequence[float], min_sd: float) -> bool:
    """False where the rewards (thumb units) differ so little that whitening would only amplify noise."""
    return len(rewards) > 1 and statistics.pstdev(rewards) >= min_sd


class CriticTrust:
    """Decides, batch by batch, whether the critic or the batch mean is the baseline.

    The critic loses trust after `patience` batches in a row with explained variance under 0, and has it back with the
    first batch at or above 0. Explained variance is measured before the critic learns from the batch.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._failures = 0

    def judge(self, explained_variance: float) -> bool:
        """Hear the critic's explained variance on a new batch; True where the critic is to be used for it."""
        self._failures = self._failures + 1 if explained_variance < 0 else 0
        return self._failures < self._patience

    def state(self) -> dict[str, float]:
        """What `load_state` needs to go on from here."""
        return {"failures": self._failures}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from a saved state."""
        self._failures = int(state["failures"])
