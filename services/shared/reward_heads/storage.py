"""Write and read a release of the reward model: `heads.safetensors` and `heads.json`. No pickle."""

import json
from pathlib import Path
from typing import Final

from safetensors.numpy import load_file, save_file

from services.shared.reward_heads.fold_design import LEFT_OUT_BUCKETS
from services.shared.reward_heads.heads import RewardHeads

ARRAYS_FILE: Final = "heads.safetensors"
SETTINGS_FILE: Final = "heads.json"
_FORMAT: Final = 1


def save_heads(heads: RewardHeads, directory: Path) -> tuple[Path, Path]:
    """Write both files into an existing directory and return their paths, arrays first."""
    arrays, settings = directory / ARRAYS_FILE, directory / SETTINGS_FILE
    save_file(
        {"weights": heads.weights_HF, "bias": heads.bias_H, "mean": heads.mean_F, "scale": heads.scale_F},
        str(arrays),
    )
    record = {
        "format": _FORMAT,
        "slope": heads.slope,
        "offset": heads.offset,
        "left_out_buckets": [list(buckets) for buckets in LEFT_OUT_BUCKETS],
    }
    settings.write_text(json.dumps(record, indent=1) + "\n")
    return arrays, settings


def load_heads(directory: Path) -> RewardHeads:
    """Read what `save_heads` wrote. Raises ValueError where the release was made for another fold design."""
    record = json.loads((directory / SETTINGS_FILE).read_text())
    if record["format"] != _FORMAT:
        raise ValueError(f"reward heads of format {record['format']}; this build reads format {_FORMAT}")
    if [tuple(buckets) for buckets in record["left_out_buckets"]] != list(LEFT_OUT_BUCKETS):
        raise ValueError("these reward heads were trained under another fold design; train them again")
    arrays = load_file(str(directory / ARRAYS_FILE))
    return RewardHeads(
        weights_HF=arrays["weights"],
        bias_H=arrays["bias"],
        mean_F=arrays["mean"],
        scale_F=arrays["scale"],
        slope=float(record["slope"]),
        offset=float(record["offset"]),
    )
