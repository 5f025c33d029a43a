"""Attention over requests that are packed in one row, each over its own keys alone, for CPUs.

The library's own way (sdpa with a mask) lets every query see the keys of all requests and hides those of others, so its
cost grows with the square of what runs. Here the requests that decode are padded to one batch, and prompts that are
being read go one by one. Results are the same but for rounding.

Shapes: `T` query positions of all requests, `S` key positions, `R` requests that decode, `K` the longest of their keys,
`H` key/value heads, `G` query heads for each, `D` the size of a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME: Final = "thumbloop_packed"
_PLAIN_MODELS: Final = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Whose attention is nothing but scaled dot products."""


def suits(config: Any, device: torch.device) -> bool:
    """Whether a model's attention can be computed here, and gains by it."""
    layers = set(getattr(config, "layer_types", None) or ("full_attention",))
    windowless = layers == {"full_attention"} or getattr(config, "sliding_window", None) is None
    return device.type == "cpu" and config.model_type in _PLAIN_MODELS and windowless


def install(model: Any) -> None:
    """Makes `model` compute its attention here. To be called after the batching manager was made, which knows its own
    implementations only, and before it starts."""
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    cache: Any,
    cu_seq_lens_q: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The library's attention interface: query [1, H*G, T, D], new keys and values [1, H, T, D]; result [1, T, H*G, D].

    `cache` stores the new keys and gives back all that the step's requests may see, request after request.
    """
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    ends_q, ends_k = tuple(cu_seq_lens_q.tolist()), tuple(kwargs["cu_seq_lens_k"].tolist())
    heads, groups = key.shape[1], query.shape[1] // key.shape[1]
    query_THGD = query[0].transpose(0, 1).reshape(-1, heads, groups, query.shape[-1])
    result_THGD = torch.empty_like(query_THGD, memory_format=torch.contiguous_format)
    plan = _plan(ends_q, ends_k)
    if plan.rows_R.numel():
        result_THGD[plan.rows_R] = _decode(query_THGD[plan.rows_R], key[0], value[0], plan, scaling)
    for begin_q, end_q, begin_k, end_k in plan.prompts:
        result_THGD[begin_q:end_q] = _read_prompt(
            query_THGD[begin_q:end_q], key[0, :, begin_k:end_k], value[0, :, begin_k:end_k], scaling
        )
    return result_THGD.flatten(1, 2).unsqueeze(0), None


class _Plan:
    """What a step's lengths mean; the same for all layers."""

    def __init__(self, ends_q: tuple[int, ...], ends_k: tuple[int, ...]) -> None:
        spans = list(zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False))
        decoding = [span for span in spans if span[1] - span[0] == 1]
        self.prompts = [span for span in spans if span[1] - span[0] > 1]
        self.rows_R = torch.tensor([begin_q for begin_q, _, _, _ in decoding], dtype=torch.long)
        begin_R1 = torch.tensor([begin_k for _, _, begin_k, _ in decoding])[:, None]
        length_R1 = torch.tensor([end_k - begin_k for _, _, begin_k, end_k in decoding])[:, None]
        longest = int(length_R1.max()) if decoding else 0
        place_K = torch.arange(longest)
        self.seen_R11K = (place_K < length_R1)[:, None, None, :]
        # Padding points to the request's first key, which the mask hides.
        self.index_RK = torch.where(place_K < length_R1, begin_R1 + place_K, begin_R1)


@lru_cache(maxsize=2)
def _plan(ends_q: tuple[int, ...], ends_k: tuple[int, ...]) -> _Plan:
    return _Plan(ends_q, ends_k)


def _decode(query_RHGD: Tensor, key_HSD: Tensor, value_HSD: Tensor, plan: _Plan, scaling: float | None) -> Tensor:
    """One query a request, over its own keys. A head's G queries are G rows of one product."""
    shape = (*plan.index_RK.shape, key_HSD.shape[0], key_HSD.shape[2])
    flat = plan.index_RK.flatten()
    key_RHKD = key_HSD.transpose(0, 1).index_select(0, flat).view(shape).transpose(1, 2)
    value_RHKD = value_HSD.transpose(0, 1).index_select(0, flat).view(shape).transpose(1, 2)
    seen = plan.seen_R11K.expand(-1, 1, query_RHGD.shape[2], -1)
    return scaled_dot_product_attention(query_RHGD, key_RHKD, value_RHKD, attn_mask=seen, scale=scaling)


def _read_prompt(query_QHGD: Tensor, key_HSD: Tensor, value_HSD: Tensor, scaling: float | None) -> Tensor:
    """A part of a prompt over itself and what was read before it."""
    queries, heads, groups, size = query_QHGD.shape
    keys = key_HSD.shape[1]
    query_HGQD = query_QHGD.permute(1, 2, 0, 3)
    key_HGSD = key_HSD[:, None].expand(heads, groups, keys, size)
    value_HGSD = value_HSD[:, None].expand(heads, groups, keys, size)
    if keys == queries:
        result = scaled_dot_product_attention(query_HGQD, key_HGSD, value_HGSD, is_causal=True, scale=scaling)
    else:
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        result = scaled_dot_product_attention(query_HGQD, key_HGSD, value_HGSD, attn_mask=seen, scale=scaling)
    return result.permute(2, 0, 1, 3)
