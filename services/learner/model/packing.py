"""Many rollouts in one row, without padding and without computing a shared prompt prefix twice.

Chat prompts begin alike (the template's system prompt). A *pack* is one row of tokens: the common prefix once, then
each rollout's rest. An attention mask lets a token see the prefix and its own rollout up to itself, nothing else, so
every rollout gets exactly what it would get alone. Positions go on from the prefix in each rollout.

Shapes: `N` tokens of a pack, `P` tokens of the prefix, `R` response tokens of a pack, `B` rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """A prompt and the answer to it, with the temperature at which the answer was sampled."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    temperature: float

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.response_ids:
            raise ValueError("a rollout needs at least one prompt token and one response token")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive to have log-probs, got {self.temperature}")

    @property
    def input_ids(self) -> tuple[int, ...]:
        """What the model reads: all but the last token, after which nothing is predicted."""
        return self.prompt_ids + self.response_ids[:-1]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The layout of one row; indices into it, no model state."""

    input_N: Tensor
    position_N: Tensor
    mask_NN: Tensor
    """True where the row's token may attend to the column's."""
    predict_R: Tensor
    """Index in N of the token after which response token R is predicted."""
    target_R: Tensor
    temperature_R: Tensor
    lengths_B: tuple[int, ...]
    """Response tokens of each rollout, in order; their sum is R."""


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all prompts share; always leaves each prompt at least one token of its own."""
    first, limit = prompts[0], min(len(prompt) for prompt in prompts) - 1
    for index in range(limit):
        if any(prompt[index] != first[index] for prompt in prompts):
            return index
    return limit


def pack(sequences: Sequence[TokenSequence], prefix: int, device: torch.device) -> Pack:
    """Lay sequences that share their first `prefix` prompt tokens into one row."""
    inputs = list(sequences[0].prompt_ids[:prefix])
    positions, owners = list(range(prefix)), [0] * prefix
    predict: list[int] = []
    for owner, sequence in enumerate(sequences, start=1):
        rest = sequence.input_ids[prefix:]
        start = len(inputs) + len(sequence.prompt_ids) - prefix - 1
        predict.extend(range(start, start + len(sequence.response_ids)))
        inputs.extend(rest)
        positions.extend(range(prefix, prefix + len(rest)))
        owners.extend([owner] * len(rest))
    owner_N = torch.tensor(owners, device=device)
    order_N = torch.arange(len(inputs), device=device)
    sees_NN = (owner_N[None, :] == owner_N[:, None]) | (owner_N[None, :] == 0)
    lengths = tuple(len(sequence.response_ids) for sequence in sequences)
    temperatures = torch.tensor([sequence.temperature for sequence in sequences], device=device)
    return Pack(
        input_N=torch.tensor(inputs, device=device),
        position_N=torch.tensor(positions, device=device),
        mask_NN=sees_NN & (order_N[None, :] <= order_N[:, None]),
        predict_R=torch.tensor(predict, device=device),
        target_R=torch.tensor([token for s in sequences for token in s.response_ids], device=device),
        temperature_R=temperatures.repeat_interleave(torch.tensor(lengths, device=device)),
        lengths_B=lengths,
    )


def split_into_packs(sequences: Sequence[TokenSequence], prefix: int, limit: int) -> list[list[int]]:
    """Split indices of sequences, in order, into groups whose packs hold at most `limit` tokens."""
    groups: list[list[int]] = []
    used = limit
    for index, sequence in enumerate(sequences):
        own = len(sequence.input_ids) - prefix
        if used + own > limit:
            groups.append([])
            used = prefix
        groups[-1].append(index)
        used += own
    return groups
