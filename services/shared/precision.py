"""In which precision a frozen model runs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]

_FAST_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def cpu_computes_bf16() -> bool:
    """True where the CPU multiplies bfloat16 natively; elsewhere bfloat16 is emulated and slower than float32."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _FAST_BF16_FLAGS.isdisjoint(flags.split())


def resolve_precision(precision: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """The setting for this machine. `auto`: bfloat16 on a GPU and on CPUs that compute in it."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") or cpu_computes_bf16() else "float32"
