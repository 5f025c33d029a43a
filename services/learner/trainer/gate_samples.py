"""What the gate asks of a candidate, measured on answers of the trainer's own model.

The candidate and the reference policy (adapter off) answer the same prompts. *KL* is exact at each position of the
candidate's answers (the sum over the whole vocabulary, at the sampling temperature) and summed over the answer, in
nats: it has the expectation of the sampled log-ratio with a fraction of its variance. *distinct-2* is the share of
token pairs that differ among all pairs; its ratio, and that of the entropies, tell a collapse. The reference's answers
to a prompt are kept: it never changes.

Shapes: `B` answers, `N` tokens of a padded row, `R` response tokens, `D` hidden size, `V` vocabulary.
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from services.learner.model.policy_model import PolicyModel
from services.learner.model.sampling import sample_answers

_ROWS = 256
"""Response positions that get logits at a time."""
_REMEMBERED_PROMPTS = 512

Prompt = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GateSampling:
    """How answers are drawn: as the traffic's are."""

    temperature: float
    max_new_tokens: int
    end_ids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """An answer and the mean entropy of the distributions it was drawn from, in nats a token."""

    response_ids: tuple[int, ...]
    entropy: float


class GateSampler:
    """Measures the policy that the model is now."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        self._reference: OrderedDict[tuple[Prompt, GateSampling], _Answer] = OrderedDict()

    def measure(self, prompts: Sequence[Prompt], sampling: GateSampling) -> dict[str, float]:
        """ "finite" (1 or 0), "kl_per_answer", "distinct2", "distinct2_ratio", "entropy_candidate", "entropy_ratio"."""
        answers = self._draw(prompts, sampling)
        kl, entropies, finite = self._compare(prompts, answers, sampling.temperature)
        reference = self._reference_answers(prompts, sampling)
        own = distinct2([answer.response_ids for answer in reference])
        ours = distinct2(answers)
        entropy = statistics.fmean(entropies)
        return {
            "finite": float(finite and math.isfinite(kl)),
            "kl_per_answer": kl,
            "distinct2": ours,
            "distinct2_ratio": ours / max(own, 1e-6),
            "entropy_candidate": entropy,
            "entropy_ratio": entropy / max(statistics.fmean(answer.entropy for answer in reference), 1e-6),
            "gate_samples": float(len(prompts)),
        }

    def _draw(self, prompts: Sequence[Prompt], sampling: GateSampling) -> list[tuple[int, ...]]:
        answers = sample_answers(
            self._model.network,
            prompts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            end_ids=sampling.end_ids,
            random=self._model.randomness.sampling,
        )
        return [answer.response_ids for answer in answers]

    def _reference_answers(self, prompts: Sequence[Prompt], sampling: GateSampling) -> list[_Answer]:
        missing = [prompt for prompt in dict.fromkeys(prompts) if (prompt, sampling) not in self._reference]
        if missing:
            with self._model.reference_policy():
                drawn = self._draw(missing, sampling)
                _, entropies, _ = self._compare(missing, drawn, sampling.temperature, with_reference=False)
            for prompt, response, entropy in zip(missing, drawn, entropies, strict=True):
                self._reference[prompt, sampling] = _Answer(response_ids=response, entropy=entropy)
        found = [self._reference[prompt, sampling] for prompt in prompts]
        while len(self._reference) > _REMEMBERED_PROMPTS:
            self._reference.popitem(last=False)
        return found

    @torch.no_grad()
    def _compare(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[tuple[int, ...]],
        temperature: float,
        *,
        with_reference: bool = True,
    ) -> tuple[float, list[float], bool]:
        """Mean KL to the reference in nats per answer, each answer's mean entropy, and whether all was finite."""
        lengths = [len(answer) for answer in answers]
        current_RD = self._final_states(prompts, answers)
        reference_RD = current_RD
        if with_reference:
            with self._model.reference_policy():
                reference_RD = self._final_states(prompts, answers)
        kls, entropies = [], []
        for current_RV, reference_RV in self._log_probs(current_RD, reference_RD, temperature):
            probs_RV = current_RV.exp()
            entropies.append(-(probs_RV * current_RV).sum(dim=-1))
            kls.append((probs_RV * (current_RV - reference_RV)).sum(dim=-1))
        kl_R, entropy_R = torch.cat(kls), torch.cat(entropies)
        finite = bool(torch.isfinite(kl_R).all() and torch.isfinite(entropy_R).all())
        return (
            float(kl_R.sum()) / len(lengths),
            [float(part.mean()) for part in torch.split(entropy_R, lengths)],
            finite,
        )

    def _final_states(self, prompts: Sequence[Prompt], answers: Sequence[tuple[int, ...]]) -> Tensor:
        """[R, D] states before each response token, in float of the trunk; rows are padded on the right."""
        rows = [prompt + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)]
        width = max(map(len, rows))
        input_BN = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=self._model.device)
        body = cast(Any, self._model.network.get_base_model()).model
        hidden_BND = body(input_ids=input_BN, use_cache=False).last_hidden_state
        return torch.cat(
            [
                hidden_BND[row, len(prompt) - 1 : len(prompt) - 1 + len(answer)]
                for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
            ]
        )

    def _log_probs(
        self, current_RD: Tensor, reference_RD: Tensor, temperature: float
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Log-probs over the vocabulary of both, some positions at a time."""
        head = cast(Any, self._model.network.get_base_model()).lm_head

        def log_probs(states: Tensor) -> Tensor:
            return torch.log_softmax(head(states).float() / temperature, dim=-1)

        for current, reference in zip(torch.split(current_RD, _ROWS), torch.split(reference_RD, _ROWS), strict=True):
            ours = log_probs(current)
            yield ours, (ours if reference_RD is current_RD else log_probs(reference))


def distinct2(answers: Sequence[Sequence[int]]) -> float:
    """Share of different token pairs among all pairs of all answers; 0 where there is no pair."""
    pairs = [pair for answer in answers for pair in pairwise(answer)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
