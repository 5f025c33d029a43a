"""The prequential test (Dawid, 1984): every prediction is made before its thumb is used, so skill cannot be feigned.

*AUROC*: the probability that an answer with a thumb up got a higher p than one with a thumb down; 0.5 is no skill. Its
bound is Hanley and McNeil's (1982). *ECE*: by how much, on average, p differs from the share of thumbs up among answers
of like p.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import rankdata

_Z_95_ONE_OF_TWO_SIDES: Final = 1.96
_BINS: Final = 10


@dataclass(frozen=True, kw_only=True)
class PrequentialReport:
    """How good the reward model was on the last thumbs before it knew them."""

    thumbs_up: int
    thumbs_down: int
    auroc: float
    """0.5 where one sign is missing."""
    auroc_low95: float
    """Lower end of the 95% interval; 0 where one sign is missing."""
    ece: float


class PrequentialTest:
    """Keeps the last predictions beside what the users then said."""

    def __init__(self, window: int) -> None:
        self._pairs: deque[tuple[float, bool]] = deque(maxlen=window)

    def record(self, predictions: Sequence[float], ups: Sequence[bool]) -> None:
        """Add predictions, made before these thumbs were trained on, oldest first."""
        self._pairs.extend(zip(map(float, predictions), map(bool, ups), strict=True))

    def report(self) -> PrequentialReport:
        """The figures over the window."""
        predictions = np.array([p for p, _ in self._pairs])
        ups = np.array([up for _, up in self._pairs], dtype=np.bool_)
        positive, negative = int(ups.sum()), int((~ups).sum())
        area, low = 0.5, 0.0
        if positive and negative:
            ranks = rankdata(predictions)
            area = float((ranks[ups].sum() - positive * (positive + 1) / 2) / (positive * negative))
            low = max(0.0, area - _Z_95_ONE_OF_TWO_SIDES * _auroc_error(area, positive, negative))
        return PrequentialReport(
            thumbs_up=positive,
            thumbs_down=negative,
            auroc=area,
            auroc_low95=low,
            ece=_calibration_error(predictions, ups),
        )

    def state(self) -> list[tuple[float, bool]]:
        """The window as plain values, oldest first."""
        return list(self._pairs)

    def load_state(self, pairs: Sequence[tuple[float, bool]]) -> None:
        """Go on from a saved window."""
        self._pairs.clear()
        self.record([p for p, _ in pairs], [up for _, up in pairs])


def _auroc_error(area: float, positive: int, negative: int) -> float:
    """Hanley and McNeil's standard error, with the area pulled off 1, where the formula would claim certainty."""
    area = min(area, 1 - 0.5 / (positive + negative))
    both_positive, both_negative = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (positive - 1) * (both_positive - area**2) + (negative - 1) * (both_negative - area**2)
    ) / (positive * negative)
    return math.sqrt(max(variance, 0.0))


def _calibration_error(predictions: "np.typing.NDArray[np.float64]", ups: "np.typing.NDArray[np.bool_]") -> float:
    if not len(predictions):
        return 0.0
    bins = np.minimum((predictions * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((predictions[bins == b] - ups[bins == b]).sum())) for b in range(_BINS)]
    return sum(gaps) / len(predictions)
