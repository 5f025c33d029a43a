"""Settings of reward training."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RewardTrainingSettings:
    """How heads are fitted and when they are trusted."""

    penalties: tuple[float, ...] = (0.02, 0.08, 0.3)
    """Strengths of the L2 penalty, per feature, among which out-of-fold likelihood chooses."""
    middle_weights: tuple[float, ...] = (0.1, 0.3)
    """How much the middle layers' features count beside the token embeddings', likewise chosen. With few thumbs the
    embeddings alone find more; a taste that is not about words needs the layers."""
    min_thumbs_of_each_sign: int = 5
    """Below this nothing is fitted: the heads stay at zero, predict nothing and so are not tested."""
    max_rater_share: float = 0.2
    """No rater's thumbs weigh more than this share of all, where there are raters enough."""
    prequential_window: int = 200
    chunk: int = 8
    """New thumbs are tested in chunks of this many, each by heads trained on all thumbs before it ..."""
    most_chunks: int = 16
    """... or of more, so that a backlog of thousands is not paid for with hundreds of trainings."""
    skill_auroc: float = 0.6
    """PPO waits until the lower 95% bound of the prequential AUROC is above this ..."""
    skill_thumbs_of_each_sign: int = 10
    """... and it was trained on this many thumbs of each sign."""
