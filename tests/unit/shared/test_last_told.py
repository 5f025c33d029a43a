"""What is told of a failure that lasts."""

from __future__ import annotations

from services.shared.telemetry.last_told import LastTold


def test_a_failure_is_news_once_until_it_changes_or_something_succeeded() -> None:
    told = LastTold()
    told.succeeded()
    assert [told.is_news(reason) for reason in ("away", "away", "refused", "away")] == [True, False, True, True]
    told.succeeded()
    assert [told.is_news("away") for _ in range(2)] == [True, False]
