"""The plan of an embedded run: ports, environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedded.plan import DEFAULT_PORTS, EmbeddedPlan, choose_ports, flatten
from services.shared.settings import load_settings


def test_ports_are_distinct_and_complete() -> None:
    ports = choose_ports(prefer_defaults=False)
    assert set(ports) == set(DEFAULT_PORTS)
    assert len(set(ports.values())) == len(ports)


def test_nested_settings_become_variables() -> None:
    assert flatten({"learner": {"seed": 3, "ppo": {"epochs": 1}}}) == {
        "THUMBLOOP_LEARNER__SEED": "3",
        "THUMBLOOP_LEARNER__PPO__EPOCHS": "1",
    }


def test_lists_come_back_as_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in flatten({"learner": {"roles": ("ingest", "releaser")}}).items():
        monkeypatch.setenv(name, value)
    assert load_settings().learner.roles == ("ingest", "releaser")


def test_overrides_win_and_services_get_one_thread() -> None:
    plan = EmbeddedPlan(
        data_dir=Path("data"), ports=DEFAULT_PORTS, overrides={"generator": {"port": 1234}, "learner": {"seed": 5}}
    )
    environment = plan.environment()
    assert environment["THUMBLOOP_GENERATOR__PORT"] == "1234"
    assert environment["THUMBLOOP_LEARNER__SEED"] == "5"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["THUMBLOOP_BUS__EMBEDDED"] == "True"


def test_a_broker_that_is_there_is_used_as_it_is() -> None:
    plan = EmbeddedPlan(data_dir=Path("data"), ports=DEFAULT_PORTS, broker="kafka.example:9092")
    assert plan.bootstrap_servers == "kafka.example:9092"
    assert plan.environment()["THUMBLOOP_BUS__EMBEDDED"] == "False"
