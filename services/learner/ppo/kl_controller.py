"""What a nat of KL costs, update by update: a fixed price, one that rises past a target, or one that steers to it.

The adaptive controller is the proportional one of Ziegler et al. (arXiv 1909.08593): it needs many updates to find its
price. The rising one has no memory: it answers at once to the KL that the policy has, and so holds a short run too. It
shortens the steps before it raises the price: Adam's are as long however little the rewards say, so near the budget
noise alone would spend what is left of it; and a price that rises early buys KL back with reward that was just learned
(the gradient of the KL is far less noisy than that of the reward, and Adam follows whichever is steadier).
"""

from typing import Protocol

from services.learner.ppo.settings import KlSettings

_MAX_ERROR = 0.5
_EASE = 0.6
"""Share of the rising price's target from which on steps shorten."""


class KlController(Protocol):
    """Holds the price and hears what KL it led to."""

    @property
    def coefficient(self) -> float:
        """Thumb units per nat for the next update."""

    @property
    def pressure(self) -> float:
        """At least 1: what the learning rate of the next update is divided by."""

    def observe(self, nats_per_answer: float, rollouts: int) -> None:
        """Hear the mean KL of the answers of one update."""

    def state(self) -> dict[str, float]:
        """What `load_state` needs to go on from here."""

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from a saved state."""


class FixedKl:
    """The same price always."""

    def __init__(self, coefficient: float) -> None:
        self._coefficient = coefficient

    @property
    def coefficient(self) -> float:
        """Thumb units per nat for the next update."""
        return self._coefficient

    @property
    def pressure(self) -> float:
        """None."""
        return 1.0

    def observe(self, nats_per_answer: float, rollouts: int) -> None:
        """Nothing to adapt."""

    def state(self) -> dict[str, float]:
        """The price."""
        return {"coefficient": self._coefficient}

    def load_state(self, state: dict[str, float]) -> None:
        """A fixed price comes from the settings, so a saved one is not taken over."""


class AdaptiveKl:
    """Raises the price while KL is above the target and lowers it below, by at most a bounded share an update."""

    def __init__(self, coefficient: float, target_nats: float, horizon_rollouts: float) -> None:
        self._coefficient = coefficient
        self._target = target_nats
        self._horizon = horizon_rollouts

    @property
    def coefficient(self) -> float:
        """Thumb units per nat for the next update."""
        return self._coefficient

    @property
    def pressure(self) -> float:
        """None."""
        return 1.0

    def observe(self, nats_per_answer: float, rollouts: int) -> None:
        """Multiply the price by 1 + error * rollouts / horizon, the relative error clipped to +-0.5."""
        error = min(max(nats_per_answer / self._target - 1, -_MAX_ERROR), _MAX_ERROR)
        self._coefficient *= 1 + error * min(rollouts / self._horizon, 1.0)

    def state(self) -> dict[str, float]:
        """The price as it stands."""
        return {"coefficient": self._coefficient}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on with a saved price."""
        self._coefficient = state["coefficient"]


class RisingKl:
    """The base price up to the target, from there on times the square of KL over target. Steps shorten earlier, past
    a share of the target."""

    def __init__(self, coefficient: float, target_nats: float) -> None:
        self._base = coefficient
        self._target = target_nats
        self._nats = 0.0

    @property
    def coefficient(self) -> float:
        """Thumb units per nat for the next update."""
        return self._base * max(1.0, self._nats / self._target) ** 2

    @property
    def pressure(self) -> float:
        """1 up to `_EASE` of the target, then the square of KL over that."""
        return max(1.0, self._nats / (_EASE * self._target)) ** 2

    def observe(self, nats_per_answer: float, rollouts: int) -> None:
        """This is where the policy stands."""
        self._nats = nats_per_answer

    def state(self) -> dict[str, float]:
        """The KL last heard of."""
        return {"nats_per_answer": self._nats}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from a KL heard of before."""
        self._nats = state["nats_per_answer"]


def make_kl_controller(settings: KlSettings) -> KlController:
    """The controller that the settings ask for."""
    if settings.kind == "fixed":
        return FixedKl(settings.coefficient)
    if settings.kind == "rising":
        return RisingKl(settings.coefficient, settings.target_nats)
    return AdaptiveKl(settings.coefficient, settings.target_nats, settings.horizon_rollouts)
