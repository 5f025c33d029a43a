"""One cycle of reward training: test the heads on new thumbs, then train them on all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.learner.reward_training.prequential import PrequentialReport, PrequentialTest
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.reward_training.skill_gate import why_no_skill
from services.learner.reward_training.thumbs import Thumb, table
from services.learner.reward_training.train_heads import train_heads
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.scoring import score

KNOWN_TO_CHUNK = 20
"""A chunk is at least a twentieth of what was known: less would not change the heads, and each fit costs the more, the
more thumbs there are."""


@dataclass(frozen=True, kw_only=True)
class RewardCycle:
    """What a cycle of reward training gives."""

    heads: RewardHeads
    thumbs: int
    tested: PrequentialReport
    no_skill: str
    """Why PPO must still wait; empty where the heads have proved skill."""


class RewardTrainer:
    """Holds the prequential window; the heads themselves are made anew from all thumbs each time."""

    def __init__(self, settings: RewardTrainingSettings, safe_point: Callable[[], None] = lambda: None) -> None:
        """`safe_point` is called before each fit; what it raises leaves the window with the chunks until then."""
        self._settings = settings
        self._safe_point = safe_point
        self.prequential = PrequentialTest(settings.prequential_window)

    def cycle(self, heads: RewardHeads, known: Sequence[Thumb], new: Sequence[Thumb]) -> RewardCycle:
        """Test on the `new` thumbs, oldest first, and train on `known` and `new` together.

        `heads` are those trained on `known`. New thumbs are taken in chunks: each is predicted by heads trained on all
        before it. Heads that know nothing predict nothing, so they are not tested.
        """
        seen = list(known)
        size = max(self._settings.chunk, -(-len(new) // self._settings.most_chunks), len(known) // KNOWN_TO_CHUNK)
        for start in range(0, len(new), size):
            self._safe_point()
            chunk = new[start : start + size]
            if not heads.knows_nothing:
                features_BF = np.stack([thumb.features_F for thumb in chunk])
                predicted = score(heads, features_BF, [thumb.rollout_id for thumb in chunk]).mean_B
                self.prequential.record(predicted.tolist(), [thumb.up for thumb in chunk])
            seen.extend(chunk)
            heads = train_heads(table(seen, self._settings.max_rater_share), self._settings)
        tested = self.prequential.report()
        ups = sum(thumb.up for thumb in seen)
        return RewardCycle(
            heads=heads,
            thumbs=len(seen),
            tested=tested,
            no_skill=why_no_skill(tested, ups, len(seen) - ups, self._settings),
        )
