"""`thumbloop --help` teaches, and imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from services.cli.main import app

HEAVY = ("torch", "transformers", "sqlalchemy", "fastapi", "kafka", "grpc", "numpy", "matplotlib")
COMMANDS = ("up", "demo", "gateway", "generator", "reward", "learner", "simulate", "topics", "doctor", "policies")


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert [command for command in COMMANDS if command not in result.output] == []


@pytest.mark.parametrize("command", [*COMMANDS, "settings"])
def test_each_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 100


def test_the_command_imports_nothing_heavy() -> None:
    code = f"import sys, services.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_wrong_setting_is_told_with_the_variable_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBLOOP_GATEWAY__PORT", "many")
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 1
    assert "THUMBLOOP_GATEWAY__PORT" in result.output
