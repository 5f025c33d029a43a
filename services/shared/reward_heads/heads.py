"""The reward model's weights: what a release of it consists of.

Shapes: `H` heads (sixteen), `F` features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.shared.reward_heads.fold_design import HEADS

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RewardHeads:
    """Sixteen logistic heads over standardised features, with one calibration for all of them.

    Head h gives a rollout with features x the probability of a thumb up
    `sigmoid(slope * (weights[h] . (x - mean) / scale + bias[h]) + offset)`.
    """

    weights_HF: FloatArray
    bias_H: FloatArray
    mean_F: FloatArray
    scale_F: FloatArray
    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        heads, features = self.weights_HF.shape
        if heads != HEADS or self.bias_H.shape != (HEADS,):
            raise ValueError(f"the fold design has {HEADS} heads; weights have {heads}, bias {self.bias_H.shape}")
        if self.mean_F.shape != (features,) or self.scale_F.shape != (features,):
            raise ValueError(f"mean and scale must have {features} entries, one for each feature")
        if not np.all(self.scale_F > 0):
            raise ValueError("every feature's scale must be positive; use 1 for a feature that never varies")

    @classmethod
    def zero(cls, features: int) -> "RewardHeads":
        """Release 0: knows nothing, gives every answer p = 0.5 and reward 0."""
        zeros_F = np.zeros(features, dtype=np.float32)
        return cls(
            weights_HF=np.zeros((HEADS, features), dtype=np.float32),
            bias_H=np.zeros(HEADS, dtype=np.float32),
            mean_F=zeros_F,
            scale_F=np.ones(features, dtype=np.float32),
        )

    @property
    def features(self) -> int:
        """How many features a rollout must come with."""
        return int(self.weights_HF.shape[1])

    @property
    def knows_nothing(self) -> bool:
        """True for release 0 and its like: it predicts the same for every answer, so it makes no claim to test."""
        return not np.any(self.weights_HF)
