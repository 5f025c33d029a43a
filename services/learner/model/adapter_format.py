"""What a release of the policy holds: `adapter.safetensors`, `adapter.json` and `value_head.safetensors`.

`adapter.safetensors` has two float32 tensors for each adapted linear module:

    {module}.lora_A   shape [r, in]
    {module}.lora_B   shape [out, r]

where `{module}` is the module's name in the base model as transformers names it, for example
`model.layers.29.self_attn.q_proj`; modules without an adapter are absent. `adapter.json` is

    {"format": 1, "rank": r, "alpha": alpha, "scale": alpha / r, "modules": ["model.layers.20...", ...]}

with the modules sorted. Whoever serves the release merges `W + scale * lora_B @ lora_A` into its own copy of the base.
Dropping all of them gives the reference policy. `value_head.safetensors` concerns the learner alone.
"""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.learner.model.policy_model import PolicyModel
from services.shared.checkpoints.adapters import ADAPTER_FILE, ADAPTER_SETTINGS_FILE

VALUE_HEAD_FILE: Final = "value_head.safetensors"
_FORMAT: Final = 1
_PEFT_PREFIX: Final = "base_model.model."
_PEFT_SUFFIX: Final = ".default.weight"


def adapter_tensors(model: PolicyModel) -> dict[str, Tensor]:
    """The adapter under the names of the release format, on the CPU, copied."""
    return {
        _release_name(name): value.detach().to("cpu", torch.float32).clone().contiguous()
        for name, value in model.adapter_parameters().items()
    }


def save_adapter(model: PolicyModel, directory: Path) -> tuple[Path, ...]:
    """Write the three files into an existing directory and return their paths."""
    tensors = adapter_tensors(model)
    lora = model.settings.lora
    record = {
        "format": _FORMAT,
        "rank": lora.rank,
        "alpha": lora.alpha,
        "scale": lora.alpha / lora.rank,
        "modules": sorted({name.rsplit(".", 1)[0] for name in tensors}),
    }
    paths = (directory / ADAPTER_FILE, directory / ADAPTER_SETTINGS_FILE, directory / VALUE_HEAD_FILE)
    save_file(tensors, str(paths[0]))
    paths[1].write_text(json.dumps(record, indent=1) + "\n")
    save_file({name: value.cpu().contiguous() for name, value in model.value_head.state_dict().items()}, str(paths[2]))
    return paths


@torch.no_grad()
def load_adapter(model: PolicyModel, directory: Path) -> None:
    """Make `model` the policy saved there, critic included. Raises ValueError where the adapters differ in layout."""
    tensors = load_file(str(directory / ADAPTER_FILE))
    record = json.loads((directory / ADAPTER_SETTINGS_FILE).read_text())
    parameters = {_release_name(name): value for name, value in model.adapter_parameters().items()}
    expected = model.settings.lora.alpha / model.settings.lora.rank
    if record["format"] != _FORMAT or record["scale"] != expected or tensors.keys() != parameters.keys():
        raise ValueError(
            f"the adapter in {directory} has another layout than the settings ask for: "
            f"start the learner with rank {record['rank']}, alpha {record['alpha']} and the same modules"
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
    model.value_head.load_state_dict(load_file(str(directory / VALUE_HEAD_FILE)))


def _release_name(peft_name: str) -> str:
    """`base_model.model.M.lora_A.default.weight` to `M.lora_A`."""
    return peft_name.removeprefix(_PEFT_PREFIX).removesuffix(_PEFT_SUFFIX)
