"""What resuming needs besides the release: optimizers, random streams, KL controller, trust in the critic.

`training_state.safetensors` holds every tensor, `training_state.json` every plain number; nothing is pickled. A learner
that loads both goes on bit for bit as if it had never stopped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.learner.model.randomness import Randomness

TENSORS_FILE: Final = "training_state.safetensors"
NUMBERS_FILE: Final = "training_state.json"


class Stateful(Protocol):
    """Anything whose state is a flat record of numbers."""

    def state(self) -> dict[str, float]:
        """What `load_state` needs."""

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from a saved state."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The live objects whose state is saved, and into which it is put back."""

    optimizers: Mapping[str, torch.optim.Optimizer]
    randomness: Randomness
    parts: Mapping[str, Stateful]


def save_training_state(directory: Path, live: TrainingState) -> tuple[Path, Path]:
    """Write both files into an existing directory and return their paths."""
    tensors = dict(live.randomness.state())
    for name, optimizer in live.optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"{name}.{index}.{slot}"] = torch.as_tensor(value).detach().cpu().contiguous()
    paths = (directory / TENSORS_FILE, directory / NUMBERS_FILE)
    save_file(tensors, str(paths[0]))
    paths[1].write_text(json.dumps({name: part.state() for name, part in live.parts.items()}, indent=1) + "\n")
    return paths


def load_training_state(directory: Path, live: TrainingState) -> None:
    """Put back what `save_training_state` wrote, into objects made from the same settings."""
    tensors = load_file(str(directory / TENSORS_FILE))
    for name, optimizer in live.optimizers.items():
        record = optimizer.state_dict()
        record["state"] = _slots(tensors, f"{name}.")
        optimizer.load_state_dict(record)
    live.randomness.load_state(tensors)
    numbers = json.loads((directory / NUMBERS_FILE).read_text())
    for name, part in live.parts.items():
        part.load_state(numbers[name])


def _slots(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix):
            index, slot = name.removeprefix(prefix).split(".")
            slots.setdefault(int(index), {})[slot] = value
    return slots
