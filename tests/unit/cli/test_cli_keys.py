"""What `thumbloop keys` understands, and who it says it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.cli.keys import parse_expiry, parse_scopes
from services.cli.learner_connection import API_KEY_VARIABLE, credential
from services.shared.access import Scope
from services.shared.domain.errors import InvalidInput, Unauthenticated
from services.shared.settings import Settings
from tests.support.access import credential_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("never", None),
        ("30m", NOW + timedelta(minutes=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("90d", NOW + timedelta(days=90)),
        ("4w", NOW + timedelta(weeks=4)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_span_a_date_or_never(text: str, expected: datetime | None) -> None:
    assert parse_expiry(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "0d", "-1d", "30", "d", "1y", "2030-02-30", "2026-11-22", "2020-01-01", "soon"])
def test_another_expiry_is_told(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expires"):
        parse_expiry(text, now=NOW)


def test_scopes_are_names_with_commas() -> None:
    assert parse_scopes("chat, score") == {Scope.CHAT, Scope.SCORE}
    for text in ("", ",", "chat;score", "CHAT", "root"):
        with pytest.raises(InvalidInput, match="chat, score, feedback, admin"):
            parse_scopes(text)


def settings(folder: Path) -> Settings:
    return Settings.model_validate({"deployment": {"data_dir": folder}})


def test_without_secrets_or_a_key_the_command_says_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    for data_dir in (None, tmp_path / "other"):
        with pytest.raises(Unauthenticated, match=f"--data-dir.*{API_KEY_VARIABLE}"):
            credential(settings(tmp_path), data_dir)
    assert list(tmp_path.iterdir()) == [], "asking makes no secrets"


def test_the_secrets_of_the_data_folder_prove_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    expected = credential_of(tmp_path / "there").authorization()
    assert credential(settings(tmp_path), tmp_path / "there").authorization() == expected
    assert credential(settings(tmp_path / "there"), None).authorization() == expected
    monkeypatch.setenv(API_KEY_VARIABLE, "tl_mine")
    assert credential(settings(tmp_path), None).authorization() == "Bearer tl_mine"
