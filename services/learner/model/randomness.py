"""The one source of randomness of a learner: seeded streams whose state can be saved and put back.

Sampling and minibatch order are separate streams, so that drawing more gate samples does not change the training.
"""

import torch
from torch import Tensor

_STREAMS = ("order", "sampling")


class Randomness:
    """Independent generators derived from one seed. All are CPU generators: the same numbers on every device."""

    def __init__(self, seed: int) -> None:
        self._streams = {
            name: torch.Generator().manual_seed(seed * len(_STREAMS) + index) for index, name in enumerate(_STREAMS)
        }

    @property
    def order(self) -> torch.Generator:
        """Decides which rollouts share a minibatch."""
        return self._streams["order"]

    @property
    def sampling(self) -> torch.Generator:
        """Draws the tokens of the trainer's own answers."""
        return self._streams["sampling"]

    def state(self) -> dict[str, Tensor]:
        """The state of every stream, as byte tensors."""
        return {f"random.{name}": generator.get_state() for name, generator in self._streams.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` returned. Raises KeyError where a stream is missing."""
        for name, generator in self._streams.items():
            generator.set_state(tensors[f"random.{name}"])
