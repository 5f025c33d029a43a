"""Which precision the frozen base runs in."""

import torch

from services.learner.model.settings import TrunkPrecision
from services.shared.precision import resolve_precision


def trunk_dtype(precision: TrunkPrecision, device: torch.device) -> torch.dtype:
    """Resolve the setting for this machine."""
    return torch.bfloat16 if resolve_precision(precision, device.type) == "bfloat16" else torch.float32
