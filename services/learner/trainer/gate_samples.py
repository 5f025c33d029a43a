"""What the gate asks of a candidate, measured on answers of the trainer's own model.

*KL* is exact at each position of the candidate's answers (over the whole vocabulary, at the sampling temperature) and
summed over the answer, in nats: it has the expectation of the sampled log-ratio with a fraction of its variance. The
*entropy ratio* compares candidate and reference at those same positions. *distinct-2* is the share of different token
pairs among all pairs of all answers; it depends on how many answers there are, so it is compared with as many answers
of the reference, which never changes: they are drawn once for each way of sampling, and kept.

Shapes: `R` response tokens of all answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch

from services.learner.model.packing import TokenSequence
from services.learner.model.policy_model import PolicyModel
from services.learner.model.sampling import sample_answers

MOST_KEPT: Final = 16
"""Ways of sampling whose reference answers are kept; traffic's longest answer differs from batch to batch."""

Prompt = tuple[int, ...]
Response = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GateSampling:
    """How answers are drawn: as the traffic's are."""

    temperature: float
    max_new_tokens: int
    end_ids: frozenset[int]


class GateSampler:
    """Measures the policy that the model is now."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        self._reference: dict[GateSampling, list[Response]] = {}

    @torch.no_grad()
    def measure(self, prompts: Sequence[Prompt], sampling: GateSampling) -> dict[str, float]:
        """Answers each prompt once. Gives "finite" (1 or 0), "kl_per_answer" (nats), "distinct2", "distinct2_ratio",
        "entropy_candidate" (nats a token), "entropy_ratio", "gate_samples"; of broken weights "finite" alone.
        """
        if not all(bool(torch.isfinite(part).all()) for part in self._model.adapter_parameters().values()):
            return {"finite": 0.0}
        answers = self._draw(prompts, sampling)
        batch = self._model.with_reference(
            self._model.prepare(
                [
                    TokenSequence(prompt_ids=prompt, response_ids=answer, temperature=sampling.temperature)
                    for prompt, answer in zip(prompts, answers, strict=True)
                ]
            )
        )
        ours = self._model.evaluate_all(batch)
        theirs = self._model.evaluate_all(replace(batch, reference_final_BRD=()), reference=True)
        kl = float(ours.kl_R.sum()) / len(answers)
        entropy, reference_entropy = float(ours.entropy_R.mean()), float(theirs.entropy_R.mean())
        distinct = distinct2(answers)
        return {
            "finite": float(math.isfinite(kl) and math.isfinite(entropy)),
            "kl_per_answer": kl,
            "distinct2": distinct,
            "distinct2_ratio": distinct / max(self._reference_distinct2(prompts, sampling), 1e-6),
            "entropy_candidate": entropy,
            "entropy_ratio": entropy / max(reference_entropy, 1e-6),
            "gate_samples": float(len(answers)),
        }

    def forget_reference(self) -> None:
        """The reference's answers are to be drawn anew: they were to prompts that are no longer asked."""
        self._reference.clear()

    def _draw(self, prompts: Sequence[Prompt], sampling: GateSampling) -> list[Response]:
        answers = sample_answers(
            self._model.network,
            prompts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            end_ids=sampling.end_ids,
            random=self._model.randomness.sampling,
            safe_point=self._model.safe_point,
        )
        return [answer.response_ids for answer in answers]

    def _reference_distinct2(self, prompts: Sequence[Prompt], sampling: GateSampling) -> float:
        """Of as many answers as there are prompts."""
        kept = self._reference.get(sampling, [])
        if len(kept) < len(prompts):
            with self._model.reference_policy():
                kept = self._draw(prompts, sampling)
            self._reference[sampling] = kept
            while len(self._reference) > MOST_KEPT:
                del self._reference[next(iter(self._reference))]
        return distinct2(kept[: len(prompts)])


def distinct2(answers: Sequence[Sequence[int]]) -> float:
    """Share of different token pairs among all pairs of all answers; 0 where there is no pair."""
    pairs = [pair for answer in answers for pair in pairwise(answer)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
