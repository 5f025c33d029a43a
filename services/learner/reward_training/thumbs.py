"""Thumbs joined with the features of the answers they are about.

Shapes: `N` thumbs, `F` features.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Thumb:
    """One effective thumb: of one rater, about one rollout."""

    rollout_id: str
    rater: str
    """Pseudonym."""
    up: bool
    features_F: NDArray[np.floating]
    weight: float = 1.0
    """Reliability of the rater; 0 takes the thumb out."""


@dataclass(frozen=True, kw_only=True)
class ThumbTable:
    """Thumbs as arrays."""

    rollout_ids: tuple[str, ...]
    features_NF: NDArray[np.float32]
    up_N: NDArray[np.bool_]
    weight_N: NDArray[np.float64]


def capped_weights(thumbs: Sequence[Thumb], max_share: float) -> NDArray[np.float64]:
    """Weights after which no rater holds more than `max_share` of the total.

    The heaviest raters are scaled down together until the cap holds. With fewer than 1 / max_share raters it cannot;
    then all raters get equal totals, which is the nearest to it.
    """
    weight_N = np.array([thumb.weight for thumb in thumbs], dtype=np.float64)
    totals: defaultdict[str, float] = defaultdict(float)
    for thumb in thumbs:
        totals[thumb.rater] += thumb.weight
    ceiling = _ceiling(sorted(totals.values()), max_share)
    factors = {rater: min(1.0, ceiling / total) if total > 0 else 0.0 for rater, total in totals.items()}
    capped: NDArray[np.float64] = weight_N * np.array([factors[thumb.rater] for thumb in thumbs])
    return capped


def table(thumbs: Sequence[Thumb], max_share: float) -> ThumbTable:
    """Arrays for training, with each rater's influence capped."""
    return ThumbTable(
        rollout_ids=tuple(thumb.rollout_id for thumb in thumbs),
        features_NF=np.stack([thumb.features_F for thumb in thumbs]).astype(np.float32),
        up_N=np.array([thumb.up for thumb in thumbs], dtype=np.bool_),
        weight_N=capped_weights(thumbs, max_share),
    )


def _ceiling(ascending: Sequence[float], max_share: float) -> float:
    """The largest total a rater may keep, such that it is at most `max_share` of all that is kept."""
    for capped in range(len(ascending)):
        # The `capped` heaviest raters hold c each: c = share * (rest + capped * c).
        if capped * max_share >= 1:
            break
        ceiling = max_share * sum(ascending[: len(ascending) - capped]) / (1 - capped * max_share)
        if ascending[len(ascending) - capped - 1] <= ceiling:
            return ceiling
    return min((total for total in ascending if total > 0), default=0.0)
