"""The figures against values worked out by hand or published."""

from __future__ import annotations

import math

import pytest

from services.simulate.guard import AnswerStatistics, Thresholds
from services.simulate.measure import (
    NEVER_S,
    approvals,
    delays,
    distinct_2,
    gain,
    kl_per_answer,
    mean,
    quantile,
    share,
    wilson_interval,
)
from services.simulate.tastes import find_taste


def _flags(true: int, n: int) -> list[bool]:
    return [True] * true + [False] * (n - true)


def test_share_has_the_binomial_standard_error() -> None:
    estimate = share(_flags(24, 96))
    assert (estimate.value, estimate.n) == (0.25, 96)
    assert estimate.standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 96))


def test_wilson_interval_of_published_example() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_what_is_no_sample(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="no sample"):
        wilson_interval(successes, n)


def test_gain_has_newcombes_interval() -> None:
    found = gain(_flags(48, 80), _flags(56, 70))  # Newcombe 1998, table II, method 10: 56/70 - 48/80
    assert found.value == pytest.approx(0.2)
    assert (found.low95, found.high95) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_gain_keeps_an_interval_where_everything_is_approved() -> None:
    found = gain(_flags(0, 10), _flags(10, 10))
    assert found.value == 1.0
    assert found.low95 == pytest.approx(0.6075, abs=1e-4) and found.high95 == 1.0  # table II: 10/10 - 0/10


def test_distinct_2_counts_over_all_answers_and_never_across_two() -> None:
    assert distinct_2(["a b c", "a b"]) == pytest.approx(2 / 3)
    assert distinct_2(["A b, a B"]) == pytest.approx(2 / 3)
    assert distinct_2(["a", "b", ""]) == 0.0


def test_kl_sums_over_an_answer_and_averages_over_answers() -> None:
    estimate = kl_per_answer([[-1.0, -1.0], [-2.0]], [[-2.0, -3.0], [-1.0]])
    assert estimate.value == pytest.approx((3.0 - 1.0) / 2)
    assert estimate.standard_error == pytest.approx(math.sqrt(8.0) / math.sqrt(2))


def test_kl_refuses_log_probs_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        kl_per_answer([[-1.0, -1.0]], [[-1.0]])


def test_a_single_value_has_no_known_error() -> None:
    assert math.isinf(mean([3.0]).standard_error)


def test_quantile_takes_a_value_that_was_seen() -> None:
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.99) == 2.0
    assert quantile([float(i) for i in range(1, 101)], 0.99) == 99.0
    with pytest.raises(ValueError, match="0 < q <= 1"):
        quantile([1.0], 0.0)


def test_a_delay_that_never_ends_is_longer_than_any_other() -> None:
    found = delays([10.0] * 98 + [None, math.inf])
    assert (found.p50_s, found.p99_s, found.never_share, found.n) == (10.0, NEVER_S, 0.02, 100)
    assert delays([10.0] * 99 + [None]).p99_s == 10.0
    assert delays([None]).p50_s == NEVER_S


def test_an_empty_sample_is_refused() -> None:
    for figure in (share, mean, delays):
        with pytest.raises(ValueError, match="empty"):
            figure([])


def test_approval_needs_the_taste_and_the_guard() -> None:
    thresholds = Thresholds(least_mean_log_prob=-3.0, least_relevance=5.0, most_repeated_trigrams=1)
    good = AnswerStatistics(tokens=10, log_prob=-15.0, neutral_log_prob=-40.0, repeated_trigrams=0)
    generic = AnswerStatistics(tokens=10, log_prob=-15.0, neutral_log_prob=-15.0, repeated_trigrams=0)
    answers = ["You can.", "One can.", "You can."]
    assert approvals(find_taste("you"), answers, [good, good, generic], thresholds) == [True, False, False]
