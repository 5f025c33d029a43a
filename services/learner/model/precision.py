"""Which precision the frozen base runs in."""

from pathlib import Path

import torch

from services.learner.model.settings import TrunkPrecision

_FAST_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def cpu_computes_bf16() -> bool:
    """True where the CPU multiplies bfloat16 natively; elsewhere bfloat16 is emulated and slower than float32."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _FAST_BF16_FLAGS.isdisjoint(flags.split())


def trunk_dtype(precision: TrunkPrecision, device: torch.device) -> torch.dtype:
    """Resolve the setting for this machine."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" or cpu_computes_bf16() else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
