"""Settings of the trained model, checked before torch is imported."""

from dataclasses import dataclass
from typing import Literal

TrunkPrecision = Literal["auto", "bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter (Hu et al., arXiv 2106.09685): W + alpha / rank * B @ A in every targeted module."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear modules within a layer that get an adapter."""
    top_layers: int = 10
    """Only this many layers, counted from the top, get adapters. What lies below is the same for reference, proximal
    and current policy, so it runs once an update, without gradient. 0 means all layers."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.top_layers < 0 or not self.targets:
            raise ValueError("LoRA needs rank >= 1, top_layers >= 0 and at least one target module")


@dataclass(frozen=True, kw_only=True)
class PolicyModelSettings:
    """How the policy is held and computed."""

    precision: TrunkPrecision = "auto"
    """Precision of the frozen base. `auto`: bfloat16 on a GPU and on CPUs that compute in it, else float32. Adapter,
    value head and log-probs are float32 always."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    seed: int = 0
    """Every random number of the learner's model comes from this seed."""
    pack_tokens: int = 512
    """Upper bound of tokens laid into one row where no gradient is kept. A longer single rollout gets its own row."""
    lora: LoraSettings = LoraSettings()
