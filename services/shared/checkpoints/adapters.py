"""Reads a LoRA adapter (Hu et al., arXiv:2106.09685) from a release's folder.

`adapter.safetensors` holds `{module}.lora_A` [r, in] and `{module}.lora_B` [out, r] in float32 for each adapted linear
module, named as in the base model; `adapter.json` holds `{"format": 1, "rank", "alpha", "scale", "modules"}`. The
policy is the base with `W + scale * lora_B @ lora_A` in those modules. A folder without both files is the base model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.shared.domain.errors import Corrupt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADAPTER_FILE: Final = "adapter.safetensors"
ADAPTER_SETTINGS_FILE: Final = "adapter.json"
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """One module's two factors: `a` [r, in] and `b` [out, r], float32."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Pairs by module name; `scale` multiplies every product."""

    scale: float
    pairs: Mapping[str, LoraPair]


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter in a release's folder; None where the release is the base model.

    Raises Corrupt, naming file and tensor, where the files do not fit one another or hold a value that is not finite.
    """
    weights, record = folder / ADAPTER_FILE, folder / ADAPTER_SETTINGS_FILE
    if not weights.exists() and not record.exists():
        return None
    settings = _read_settings(record)
    tensors = _read_tensors(weights)
    pairs = {}
    for module in settings["modules"]:
        try:
            pair = LoraPair(a=tensors.pop(f"{module}.lora_A"), b=tensors.pop(f"{module}.lora_B"))
        except KeyError as error:
            raise Corrupt(f"{weights} lacks {error}, which {record.name} promises.", reason="ADAPTER_LAYOUT") from error
        _check_pair(module, pair, int(settings["rank"]))
        pairs[module] = pair
    if tensors:
        raise Corrupt(
            f"{weights} holds {sorted(tensors)[0]}, which {record.name} does not name.", reason="ADAPTER_LAYOUT"
        )
    return Adapter(scale=float(settings["scale"]), pairs=pairs)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
        known = settings["format"] == _FORMAT
        whole = all(key in settings for key in ("rank", "scale", "modules"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is no adapter description: {error!r}", reason="ADAPTER_LAYOUT") from error
    if not known or not whole:
        raise Corrupt(
            f"{path} must be of format {_FORMAT} with rank, scale and modules; upgrade this replica if it is older "
            "than the learner.",
            reason="ADAPTER_LAYOUT",
        )
    return settings


def _read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"{path} is no safetensors file: {error}", reason="ADAPTER_LAYOUT") from error


def _check_pair(module: str, pair: LoraPair, rank: int) -> None:
    import numpy as np

    a, b = pair.a, pair.b
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise Corrupt(
            f"{module}: lora_A {a.shape} and lora_B {b.shape} do not fit rank {rank} as [r, in], [out, r].",
            reason="ADAPTER_LAYOUT",
        )
    if a.dtype != np.float32 or b.dtype != np.float32:
        raise Corrupt(f"{module}: the adapter must be float32, not {a.dtype}.", reason="ADAPTER_LAYOUT")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise Corrupt(f"{module}: the adapter holds values that are not finite.", reason="NOT_FINITE")
