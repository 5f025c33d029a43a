"""Settings that cannot hold together are told to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.shared.domain.errors import Misconfigured
from services.shared.settings import load_settings

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("keep_days", "valid"), [(0, True), (1, False), (37, False), (38, True), (90, True)])
def test_rollouts_are_kept_while_their_tokens_are_good(
    monkeypatch: pytest.MonkeyPatch, keep_days: int, valid: bool
) -> None:
    monkeypatch.setenv("THUMBLOOP_LEARNER__ROLLOUTS_RETENTION_S", str(keep_days * DAY_S))
    if valid:
        assert load_settings().learner.rollouts_retention_s == keep_days * DAY_S
        return
    with pytest.raises(Misconfigured, match=r"rollouts_retention_s .*gateway\.feedback_token_ttl_s"):
        load_settings()


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBLOOP_LEARNER__ROLLOUTS_RETENTION_S", "-1")
    with pytest.raises(Misconfigured, match="THUMBLOOP_LEARNER__ROLLOUTS_RETENTION_S"):
        load_settings()
