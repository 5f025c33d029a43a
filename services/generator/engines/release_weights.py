"""From a release's folder to weights that can be exchanged: W0 + scale * B @ A, in float32, beside the serving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from services.generator.engines.base_weights import BaseWeights
from services.generator.engines.served_linear import Prepared, ServedLinear
from services.shared.checkpoints.adapters import LoraPair, read_adapter
from services.shared.domain.errors import Corrupt


class ReleaseWeights:
    """Safe to use while the model serves: reads files, changes nothing."""

    def __init__(self, model_dir: Path, linears: Mapping[str, ServedLinear]) -> None:
        self._base = BaseWeights(model_dir)
        self._linears = linears

    @torch.no_grad()
    def prepare(self, folder: Path) -> tuple[dict[str, Prepared], str]:
        """Merged weights by module name (none for the base model), and what is wrong with their values ("": nothing).

        Raises Corrupt where the adapter does not fit the model.
        """
        adapter = read_adapter(folder)
        prepared: dict[str, Prepared] = {}
        if adapter is None:
            return prepared, ""
        for name, pair in adapter.pairs.items():
            self._check(name, pair)
            update = torch.from_numpy(pair.b) @ torch.from_numpy(pair.a)
            merged = self._base.read(f"{name}.weight").add_(update, alpha=adapter.scale)
            if not bool(torch.isfinite(merged).all()):
                return {}, f"{name} is not finite once the adapter is merged"
            prepared[name] = self._linears[name].prepare(merged)
        return prepared, ""

    @torch.no_grad()
    def base(self, names: Iterable[str]) -> dict[str, Prepared]:
        """The base model's weights of some modules."""
        return {name: self._linears[name].prepare(self._base.read(f"{name}.weight")) for name in names}

    def _check(self, name: str, pair: LoraPair) -> None:
        linear = self._linears.get(name)
        if linear is None or f"{name}.weight" not in self._base:
            raise Corrupt(
                f"The release adapts {name}, which is no linear module of this base model.", reason="ADAPTER_LAYOUT"
            )
        shape = (pair.b.shape[0], pair.a.shape[1])
        if shape != (linear.out_features, linear.in_features):
            raise Corrupt(
                f"The release's adapter of {name} is {shape}; the base model's weight is "
                f"{(linear.out_features, linear.in_features)}.",
                reason="ADAPTER_LAYOUT",
            )
