"""Answers from the trainer's own model: plain sampling, for the gate and for measuring.

Shapes: `B` prompts, `T` tokens, `D` hidden size, `V` vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache

from services.learner.model.packing import common_prefix


@dataclass(frozen=True, kw_only=True)
class SampledAnswer:
    """One sampled answer with the log-probs of the distribution it was sampled from."""

    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@torch.no_grad()
def sample_answers(
    network: nn.Module,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    temperature: float,
    end_ids: frozenset[int],
    random: torch.Generator,
    safe_point: Callable[[], None] = lambda: None,
) -> list[SampledAnswer]:
    """Sample one answer to each prompt (top-p 1, top-k off). The end token, where it comes, is part of the answer.

    The prompts' common prefix is computed once; the rest is padded on the left. `random` is a CPU generator, so the
    same seed draws the same numbers on every device. `safe_point` is called before each token; it may raise.
    """
    body, head = _parts(network)
    device = head.weight.device
    final_BD, cache, mask_BT = _read_prompts(body, prompts, device)
    tokens: list[Tensor] = []
    logprobs: list[Tensor] = []
    running_B = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(max_new_tokens):
        safe_point()
        logprobs_BV = torch.log_softmax(head(final_BD).float().cpu() / temperature, dim=-1)
        token_B = _draw(logprobs_BV, random)
        tokens.append(torch.where(running_B, token_B, -1))
        logprobs.append(logprobs_BV.gather(1, token_B[:, None])[:, 0])
        running_B &= ~torch.isin(token_B, torch.tensor(sorted(end_ids), dtype=token_B.dtype))
        if len(tokens) == max_new_tokens or not bool(running_B.any()):
            break
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(prompts), 1)], dim=1)
        step = body(
            input_ids=token_B[:, None].to(device),
            attention_mask=mask_BT,
            position_ids=mask_BT.sum(dim=1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        )
        final_BD = step.last_hidden_state[:, -1]
    return _collect(torch.stack(tokens, dim=1), torch.stack(logprobs, dim=1))


def _parts(network: nn.Module) -> tuple[Any, nn.Linear]:
    """The decoder and the head of a causal language model, with or without an adapter around it."""
    model = cast(Any, network.get_base_model() if isinstance(network, PeftModel) else network)
    return model.model, model.lm_head


def _draw(logprobs_BV: Tensor, random: torch.Generator) -> Tensor:
    """One token a row by the inverse of the cumulative distribution: a single random number a row."""
    cumulative_BV = logprobs_BV.exp().cumsum(dim=-1)
    level_B1 = torch.rand(len(logprobs_BV), 1, generator=random) * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, level_B1, right=True)[:, 0].clamp_max(logprobs_BV.shape[1] - 1)


def _read_prompts(
    body: Any, prompts: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[Tensor, DynamicCache, Tensor]:
    """The final hidden state after each prompt, the cache, and which of its positions are real tokens."""
    prefix = common_prefix(prompts)
    cache = DynamicCache()
    if prefix:
        body(input_ids=torch.tensor([prompts[0][:prefix]], device=device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    rests = [prompt[prefix:] for prompt in prompts]
    width = max(len(rest) for rest in rests)
    input_BT = torch.zeros(len(prompts), width, dtype=torch.long)
    mask_BT = torch.ones(len(prompts), prefix + width, dtype=torch.long)
    for row, rest in enumerate(rests):
        input_BT[row, width - len(rest) :] = torch.tensor(rest)
        mask_BT[row, prefix : prefix + width - len(rest)] = 0
    mask_BT = mask_BT.to(device)
    out = body(
        input_ids=input_BT.to(device),
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(dim=1) - 1)[:, prefix:],
        past_key_values=cache,
        use_cache=True,
    )
    return out.last_hidden_state[:, -1], cache, mask_BT


def _collect(tokens_BT: Tensor, logprobs_BT: Tensor) -> list[SampledAnswer]:
    answers = []
    for token_T, logprob_T in zip(tokens_BT.tolist(), logprobs_BT.tolist(), strict=True):
        length = token_T.index(-1) if -1 in token_T else len(token_T)
        answers.append(SampledAnswer(response_ids=tuple(token_T[:length]), logprobs=tuple(logprob_T[:length])))
    return answers
