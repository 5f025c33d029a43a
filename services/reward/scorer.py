"""From features to what is said of a response: mean, spread and named terms, at one reward model version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.reward.resident_models import ResidentModels
from services.shared.domain.errors import InvalidInput
from services.shared.domain.reward_terms import INVALID, VALIDITY, Terms
from services.shared.reward_heads.scoring import score


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a reward model says of one response."""

    mean: float
    """Probability of a thumb up, 0 to 1."""
    spread: float
    """Standard deviation of that probability among the members that may judge."""
    terms: Terms
    """Addends of the reward, in thumb units."""


NO_TOKENS = Judgement(mean=0.0, spread=0.0, terms=((VALIDITY, INVALID),))
"""A response without a single token: no model can read it, so the rule alone speaks."""


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """A batch's judgements, all by one version."""

    reward_model_version: str
    items: tuple[Judgement, ...]


class Scorer:
    """Judges features by the heads of a resident reward model. Thread-safe."""

    def __init__(self, models: ResidentModels, *, feature_count: int, spread_penalty: float) -> None:
        self._models = models
        self._feature_count = feature_count
        self._spread_penalty = spread_penalty

    def judge(self, features: Sequence[bytes], rollout_ids: Sequence[str], *, version: str = "") -> Judgements:
        """One judgement for each features (fp16 bytes), in order. An empty rollout id: all members vote.

        Raises FailedPrecondition where `version` is not resident, InvalidInput where features have a wrong size.
        """
        resident, heads = self._models.get(version)
        if not features:
            return Judgements(reward_model_version=resident, items=())
        features_BF = np.stack([self._decode(one, index) for index, one in enumerate(features)])
        scores = score(heads, features_BF, rollout_ids, spread_penalty=self._spread_penalty)
        return Judgements(
            reward_model_version=resident,
            items=tuple(
                Judgement(
                    mean=float(scores.mean_B[row]),
                    spread=float(scores.spread_B[row]),
                    terms=(("thumb", float(scores.thumb_B[row])), ("spread", float(scores.doubt_B[row]))),
                )
                for row in range(len(features))
            ),
        )

    def _decode(self, features: bytes, index: int) -> np.ndarray[tuple[int], np.dtype[np.float16]]:
        if len(features) != 2 * self._feature_count:
            raise InvalidInput(
                f"items[{index}].features has {len(features)} bytes; {self._feature_count} little-endian fp16 numbers "
                f"have {2 * self._feature_count}. Take them from a score of the same feature layout.",
                reason="BAD_FEATURES",
                field=f"items[{index}].features",
            )
        vector = np.frombuffer(features, dtype="<f2")
        if not np.isfinite(vector).all():
            raise InvalidInput(
                f"items[{index}].features holds NaN or infinity. Make them again from the rollout's tokens.",
                reason="BAD_FEATURES",
                field=f"items[{index}].features",
            )
        return vector
