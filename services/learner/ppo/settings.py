"""Settings of a PPO update, checked before torch is imported."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class KlSettings:
    """The price of leaving the reference policy."""

    kind: Literal["adaptive", "fixed", "rising"] = "rising"
    place: Literal["loss", "reward"] = "loss"
    """`loss`: the exact KL of each token's distribution, differentiated; it has no sampling noise. `reward`: the
    sampled token's log-ratio, taken off its reward, as in the first RLHF papers."""
    coefficient: float = 0.08
    """Thumb units per nat; where `adaptive` starts, and what `rising` asks up to the target."""
    target_nats: float = 2.5
    """KL per answer that `adaptive` steers to and past which `rising` raises the price and shortens the steps."""
    horizon_rollouts: float = 480.0
    """How many rollouts `adaptive` takes, about, to correct a deviation."""


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """One update. The defaults were tuned together for answers of some tens of tokens and 48 rollouts an update."""

    learning_rate: float = 1e-3
    epochs: int = 1
    minibatch_rollouts: int = 4
    clip: float = 0.2
    behaviour_cap: float = 2.0
    """c of the truncated weight min(proximal / behaviour, c)."""
    gae_lambda: float = 0.95
    """1 trusts the rewards alone. The critic sees which answers are decided, so a little of it cuts the noise."""
    entropy_coefficient: float = 0.0
    """Whitened units per nat of entropy; the exact KL to the reference already keeps the policy from narrowing."""
    max_gradient_norm: float = 1.0
    kl: KlSettings = KlSettings()
    advantage_floor: float = 0.3
    """Advantages are divided by at least this standard deviation, in thumb units."""
    min_reward_sd: float = 0.15
    """A batch whose rewards vary less than this has nothing left to teach: its update is skipped."""
    critic_learning_rate: float = 1e-2
    critic_epochs: int = 16
    value_clip: float = 0.5
    """How far, in thumb units, one update may move a value before its gain stops counting."""
    critic_patience: int = 3
    """Batches in a row with explained variance under 0 after which the batch mean replaces the critic."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.minibatch_rollouts < 1:
            raise ValueError("epochs and minibatch_rollouts must be at least 1")
        if not 0 < self.clip < 1 or self.behaviour_cap < 1:
            raise ValueError("clip must lie between 0 and 1, behaviour_cap must be at least 1")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError("gae_lambda must lie between 0 and 1")
