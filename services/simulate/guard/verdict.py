"""What the guard measures of one answer, and the judgement it makes from that. Pure; no model here.

An answer counts only if it is fluent, to the prompt and not looping. The reward model never sees any of these, so
a policy cannot be trained against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from services.simulate.words import words


class Fault(StrEnum):
    """Why an answer does not count."""

    EMPTY = "empty"
    NOT_FLUENT = "not_fluent"
    OFF_PROMPT = "off_prompt"
    LOOPING = "looping"


@dataclass(frozen=True, kw_only=True)
class AnswerStatistics:
    """What judging one answer needs. Log-probs are sums in nats under the base model at temperature 1."""

    tokens: int
    log_prob: float
    neutral_log_prob: float
    repeated_trigrams: int

    @property
    def mean_log_prob(self) -> float:
        """Fluency: nats per token of the answer given its prompt. Minus infinity where there is no token."""
        return self.log_prob / self.tokens if self.tokens else -math.inf

    @property
    def relevance(self) -> float:
        """Nats of the whole answer that its own prompt explains and a neutral one does not."""
        return self.log_prob - self.neutral_log_prob


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The bounds of the guard: data, derived from the base model's own answers (see ``calibrate``)."""

    least_mean_log_prob: float
    least_relevance: float
    most_repeated_trigrams: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The faults found, in the order of ``Fault``; none means that the answer counts."""

    faults: tuple[Fault, ...]

    @property
    def passed(self) -> bool:
        """Whether the answer counts."""
        return not self.faults


def repeated_trigrams(answer: str) -> int:
    """How many runs of three words stood in the answer before: 0 where all differ, 4 for "you can" said four times."""
    tokens = words(answer)
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return len(trigrams) - len(set(trigrams))


def judge(statistics: AnswerStatistics, thresholds: Thresholds) -> Verdict:
    """Whether one answer counts, and every reason why it does not. A bound itself still passes."""
    if statistics.tokens == 0:
        return Verdict(faults=(Fault.EMPTY,))
    found = {
        Fault.NOT_FLUENT: statistics.mean_log_prob < thresholds.least_mean_log_prob,
        Fault.OFF_PROMPT: statistics.relevance < thresholds.least_relevance,
        Fault.LOOPING: statistics.repeated_trigrams > thresholds.most_repeated_trigrams,
    }
    return Verdict(faults=tuple(fault for fault, present in found.items() if present))
