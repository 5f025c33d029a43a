"""The base model's weights, read from its files when they are asked for, so that memory holds only what is served."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from services.shared.domain.errors import Misconfigured


class BaseWeights:
    """Tensors by name over all `*.safetensors` of a model folder. The files are never changed."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open has no iterator)
                    self._files[name] = path
        if not self._files:
            raise Misconfigured(f"{folder} holds no *.safetensors; set model.path to a chat model's folder.")

    def read(self, name: str) -> Tensor:
        """The tensor in float32. Raises KeyError for a name that the model does not have."""
        with safe_open(str(self._files[name]), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.to(torch.float32)

    def __contains__(self, name: str) -> bool:
        return name in self._files
