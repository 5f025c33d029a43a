"""Token buckets, with a clock that moves by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.domain.errors import Busy
from services.shared.limits import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(buckets: TokenBuckets, key: str, attempts: int) -> int:
    """How many of so many attempts are let through, all at once."""
    passed = 0
    for _ in range(attempts):
        try:
            buckets.take(key)
            passed += 1
        except Busy:
            pass
    return passed


def test_a_burst_passes_and_no_more() -> None:
    clock = Clock()
    buckets = TokenBuckets(2.0, 5, 100, clock)
    assert taken(buckets, "a", 50) == 5
    assert taken(buckets, "b", 50) == 5, "each key has its own bucket"


def test_a_refusal_says_when_and_takes_nothing() -> None:
    clock = Clock()
    buckets = TokenBuckets(2.0, 1, 100, clock)
    buckets.take("a")
    for _ in range(10):
        with pytest.raises(Busy) as refused:
            buckets.take("a")
        assert refused.value.retry_after == pytest.approx(0.5)
        assert refused.value.reason == "RATE_LIMITED"
    clock.now += 0.5
    buckets.take("a")


def test_a_bucket_fills_again_up_to_its_burst() -> None:
    clock = Clock()
    buckets = TokenBuckets(10.0, 3, 100, clock)
    assert taken(buckets, "a", 9) == 3
    clock.now += 0.1
    assert taken(buckets, "a", 9) == 1
    clock.now += 1000
    assert taken(buckets, "a", 9) == 3


def test_buckets_are_bounded_and_full_ones_are_forgotten() -> None:
    clock = Clock()
    buckets = TokenBuckets(1.0, 2, 10, clock)
    for number in range(1000):
        buckets.take(f"k{number}")
    assert len(buckets) == 10
    clock.now += 60
    for _ in range(10):
        clock.now += 1
        buckets.take("one")
    assert len(buckets) == 1


def test_who_keeps_knocking_is_not_forgotten_for_the_quiet() -> None:
    """At the capacity the longest unused bucket goes; a busy key cannot get a fresh one by making others."""
    clock = Clock()
    buckets = TokenBuckets(0.001, 2, 3, clock)
    assert taken(buckets, "busy", 2) == 2
    for number in range(2):
        buckets.take(f"other{number}")
    assert taken(buckets, "busy", 1) == 0


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 20),
    pauses=st.lists(st.floats(0, 2), max_size=60),
)
def test_never_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    buckets = TokenBuckets(rate, burst, 10, clock)
    passed: list[float] = []
    for pause in pauses:
        clock.now += pause
        if taken(buckets, "a", 1):
            passed.append(clock.now)
    for begin in range(len(passed)):
        for end in range(begin, len(passed)):
            assert end - begin + 1 <= burst + rate * (passed[end] - passed[begin]) + 1e-3
