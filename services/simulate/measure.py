"""The figures of a run, as pure functions of what was observed.

Terms: *approval* is the share of answers that the taste likes and the guard lets count; *gain* is approval after
minus approval before; *KL* is the sum over an answer of log(policy / reference), both at the sampling temperature,
in nats per answer; *distinct-2* is the share of two-word runs that are different ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from services.simulate.guard.verdict import AnswerStatistics, Thresholds, judge
from services.simulate.tastes import Taste
from services.simulate.words import words

Z_95 = 1.959963984540054
"""The normal quantile of a two-sided 95% interval."""
NEVER_S = 1e9
"""How a delay without an end is written in figures, where infinity would not survive JSON."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over ``n`` observations with its standard error, in the unit of the observations."""

    value: float
    standard_error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The difference of two shares and its 95% interval."""

    value: float
    low95: float
    high95: float


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Quantiles of delays in seconds; ``NEVER_S`` where the quantile falls on delays that never ended."""

    p50_s: float
    p99_s: float
    never_share: float
    n: int


def approvals(
    taste: Taste, answers: Sequence[str], statistics: Sequence[AnswerStatistics], thresholds: Thresholds
) -> list[bool]:
    """For each answer whether it is approved: the taste likes it *and* the guard finds no fault in it."""
    return [
        taste.likes(answer) and judge(measured, thresholds).passed
        for answer, measured in zip(answers, statistics, strict=True)
    ]


def share(flags: Sequence[bool]) -> Estimate:
    """The share of true flags with its binomial standard error. Raises ``ValueError`` on an empty sample."""
    _require(flags, "a share")
    p = sum(flags) / len(flags)
    return Estimate(value=p, standard_error=math.sqrt(p * (1 - p) / len(flags)), n=len(flags))


def gain(before: Sequence[bool], after: Sequence[bool]) -> Gain:
    """Share of ``after`` minus share of ``before`` with Newcombe's hybrid score interval (1998, method 10).

    Unlike p ± 1.96 standard errors it keeps its coverage near 0 and 1, where a policy that collapsed or learned fully
    ends up. The samples are taken as independent although both are of the same prompts: answers to one prompt agree
    more than answers to two, so pairing would only narrow the interval.
    """
    first, second = share(before), share(after)
    low_first, high_first = wilson_interval(sum(before), first.n)
    low_second, high_second = wilson_interval(sum(after), second.n)
    difference = second.value - first.value
    return Gain(
        value=difference,
        low95=difference - math.hypot(second.value - low_second, high_first - first.value),
        high95=difference + math.hypot(high_second - second.value, first.value - low_first),
    )


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval (1927) of a share of ``successes`` in ``n`` trials, ``n`` at least 1."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes in {n} trials is no sample: give 0 <= successes <= n and n >= 1")
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half_width = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def distinct_2(answers: Sequence[str]) -> float:
    """Distinct two-word runs over all two-word runs of all answers together; 0 where there are none.

    Li et al. 2016 (arXiv 1510.03055). It falls with the size of the sample: compare only samples of as many answers.
    """
    pairs = [pair for answer in answers for pair in pairwise(words(answer))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def kl_per_answer(behaviour: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> Estimate:
    """Mean over answers of the summed log(policy / reference), in nats per answer.

    ``behaviour[i][t]`` and ``reference[i][t]`` are log-probs of token ``t`` of answer ``i``, both of logits divided by
    the sampling temperature. The plain estimator: unbiased when the answers were sampled from the policy, and a single
    answer's term may be negative.
    """
    _require(behaviour, "KL")
    sums = [
        math.fsum(policy - base for policy, base in zip(ours, theirs, strict=True))
        for ours, theirs in zip(behaviour, reference, strict=True)
    ]
    return mean(sums)


def mean(values: Sequence[float]) -> Estimate:
    """The mean with its standard error, which is infinite for a single value."""
    _require(values, "a mean")
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(value=fmean(values), standard_error=error, n=len(values))


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a share ``q`` of the values does not exceed (nearest rank, no interpolation)."""
    _require(values, "a quantile")
    if not 0 < q <= 1:
        raise ValueError(f"quantile {q} is out of range: give 0 < q <= 1")
    return sorted(values)[math.ceil(q * len(values)) - 1]


def delays(seconds: Sequence[float | None]) -> Delays:
    """p50 and p99 of delays; ``None`` or infinity is one that never ended and counts as longer than any other."""
    ended = [math.inf if value is None else value for value in seconds]
    never = sum(math.isinf(value) for value in ended)
    return Delays(
        p50_s=min(quantile(ended, 0.50), NEVER_S),
        p99_s=min(quantile(ended, 0.99), NEVER_S),
        never_share=never / len(ended),
        n=len(ended),
    )


def _require(sample: Sequence[object], what: str) -> None:
    if not sample:
        raise ValueError(f"{what} needs at least one observation: the sample is empty")
