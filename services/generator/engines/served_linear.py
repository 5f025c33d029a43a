"""A linear layer whose weight can be exchanged between two decode steps.

A weight is *prepared* once, off the serving thread: cast, moved to the device and, on a CPU, laid out in oneDNN's
blocked order (the batches of decoding are so small that the plain layout runs at half the speed). Exchanging it
afterwards is the assignment of a reference. Shapes: x [..., in], weight [out, in], result [..., out].
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

Prepared = Tensor
"""A weight as `ServedLinear.prepare` made it; opaque."""


class ServedLinear(nn.Module):
    """Stands in for an `nn.Linear` of the served model."""

    def __init__(self, linear: nn.Linear, *, batch_hint: int) -> None:
        """`batch_hint`: rows that a usual decode step has; the blocked layout is made for it."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._device, self._dtype = linear.weight.device, linear.weight.dtype
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._batch_hint = batch_hint
        self._packed = self._device.type == "cpu" and _packing_works(self._dtype)
        self._weight = self.prepare(linear.weight.detach())

    @torch.no_grad()
    def prepare(self, weight: Tensor) -> Prepared:
        """A weight ready to be served by this layer."""
        cast_weight = weight.to(self._device, self._dtype)
        if not self._packed:
            return cast_weight.contiguous()
        return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(cast_weight.contiguous(), self._batch_hint))

    def exchange(self, prepared: Prepared) -> None:
        """Serves `prepared` from the next call on."""
        self._weight = prepared

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b."""
        if self._packed:
            product: Any = torch.ops.mkldnn._linear_pointwise
            return cast(Tensor, product(x, self._weight, self._bias, "none", [], ""))
        return nn.functional.linear(x, self._weight, self._bias)


def _packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this CPU multiply by blocked weights, and rightly."""
    if not cast(bool, torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return False
    x, weight = torch.ones(2, 16, dtype=dtype), torch.eye(16, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""), x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def serve_linears(model: nn.Module, *, batch_hint: int) -> dict[str, ServedLinear]:
    """Replaces every `nn.Linear` of `model` and returns the replacements by name. The plain weights leave memory, but
    for one that is tied to the embedding."""
    served: dict[str, ServedLinear] = {}
    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in linears:
        parent_name, _, child = name.rpartition(".")
        served[name] = ServedLinear(module, batch_hint=batch_hint)
        setattr(model.get_submodule(parent_name), child, served[name])
    return served
