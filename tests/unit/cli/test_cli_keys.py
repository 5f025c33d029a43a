"""What `thumbloop keys` understands, and who it says it is."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from thumbloop.learner.v1 import learner_pb2
from typer.testing import CliRunner

from services.cli import keys
from services.cli.keys import parse_expiry, parse_scopes
from services.cli.learner_connection import API_KEY_VARIABLE, credential
from services.cli.main import app
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


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "30", "d", "1y", "2030-02-30", "2026-11-22", "2020-01-01", "soon", "999999w"]
)
def test_another_expiry_is_told(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expires"):
        parse_expiry(text, now=NOW)


def test_scopes_are_names_with_commas() -> None:
    assert parse_scopes("chat, score") == {Scope.CHAT, Scope.SCORE}
    for text in ("", ",", "chat;score", "CHAT", "root"):
        with pytest.raises(InvalidInput, match="chat, score, feedback, admin"):
            parse_scopes(text)


class Learner:
    """A learner's stub that knows one key."""

    def __init__(self, name: str) -> None:
        self.key = learner_pb2.ApiKey(key_id="k" * 12, name=name, tenant="acme", scopes=[learner_pb2.SCOPE_CHAT])
        self.asked: list[Any] = []

    def ListApiKeys(self, request: Any, timeout: float) -> learner_pb2.ListApiKeysResponse:
        self.asked.append(request)
        return learner_pb2.ListApiKeysResponse(keys=[self.key])

    def CreateApiKey(self, request: Any, timeout: float) -> learner_pb2.CreateApiKeyResponse:
        self.asked.append(request)
        return learner_pb2.CreateApiKeyResponse(key=self.key)

    def RevokeApiKey(self, request: Any, timeout: float) -> learner_pb2.RevokeApiKeyResponse:
        self.asked.append(request)
        return learner_pb2.RevokeApiKeyResponse(key=self.key)


def run(monkeypatch: pytest.MonkeyPatch, learner: Learner, *words: str) -> str:
    """`thumbloop keys WORDS` with that learner."""
    monkeypatch.setattr(keys, "learner", lambda address, data_dir: nullcontext(learner))
    done = CliRunner().invoke(app, ["keys", *words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["[/x]", "[bold]web[/]", "web\\", "[link=http://elsewhere]web"])
def test_a_name_is_shown_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["list"], ["revoke", "k" * 12]):
        assert name in run(monkeypatch, Learner(name), *words)


def test_a_key_that_names_no_tenant_means_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the deployment's secrets the settings say which; with a key the learner knows."""
    learner = Learner("web")
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    run(monkeypatch, learner, "create", "web")
    monkeypatch.setenv(API_KEY_VARIABLE, "tl_mine")
    run(monkeypatch, learner, "create", "web")
    run(monkeypatch, learner, "create", "web", "--tenant", "acme")
    assert [request.tenant for request in learner.asked] == ["default", "", "acme"]


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
