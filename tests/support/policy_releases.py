"""Policy releases made by hand, and log-probs recomputed by a plain forward pass, for tests of engines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

from services.shared.domain.rollout import VersionSpan


def write_adapter(folder: Path, model_dir: Path, *, seed: int, size: float, rank: int = 4, layers: int = 2) -> Path:
    """A release with a random adapter in attention and MLP of the top layers; `size` is the sd of its factors."""
    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=torch.float32)
    first = model.config.num_hidden_layers - layers
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and "layers" in parts and int(parts[parts.index("layers") + 1]) >= first:
            tensors[f"{name}.lora_A"] = torch.randn(rank, module.in_features, generator=random) * size
            tensors[f"{name}.lora_B"] = torch.randn(module.out_features, rank, generator=random) * size
    save_file(tensors, str(folder / "adapter.safetensors"))
    modules = sorted({name.rsplit(".", 1)[0] for name in tensors})
    record = {"format": 1, "rank": rank, "alpha": 2.0 * rank, "scale": 2.0, "modules": modules}
    (folder / "adapter.json").write_text(json.dumps(record))
    return folder


def plain_model(model_dir: Path, release: Path) -> Any:
    """The policy of a release as an ordinary transformers model in float32, merged by a few lines of its own."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=torch.float32)
    model.eval()
    if (release / "adapter.safetensors").exists():
        tensors = load_file(str(release / "adapter.safetensors"))
        scale = json.loads((release / "adapter.json").read_text())["scale"]
        with torch.no_grad():
            for name in {key.rsplit(".", 1)[0] for key in tensors}:
                update = tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"]
                model.get_submodule(name).weight += scale * update
    return model


@torch.no_grad()
def recompute_log_probs(
    models: Mapping[str, Any],
    *,
    prompt: Sequence[int],
    response: Sequence[int],
    spans: Sequence[VersionSpan],
    temperature: float,
) -> list[float]:
    """Log-probs of the response [T] under each token's recorded version and KV history (KEPT), plain sampling.

    The first span's version reads the prompt and its own tokens; each later one goes on from the cache as the earlier
    ones left it, beginning with the last token of the span before.
    """
    cache = DynamicCache()
    log_probs: list[float] = []
    for span in spans:
        ids = [*prompt, *response[: span.end - 1]] if span.begin == 0 else response[span.begin - 1 : span.end - 1]
        logits_TV = models[span.policy_version](
            input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True
        ).logits[0, -(span.end - span.begin) :]
        scaled_TV = (logits_TV.double() / temperature).log_softmax(dim=-1)
        drawn = torch.tensor(list(response[span.begin : span.end]))
        log_probs += scaled_TV.gather(1, drawn[:, None])[:, 0].tolist()
    return log_probs
