"""What the supervisor says when it can do no more."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from services.embedded.plan import EmbeddedPlan, choose_ports
from services.embedded.supervisor import MAX_QUICK_DEATHS, Supervisor
from services.shared.domain.errors import Unavailable
from tests.support.patience import eventually


class DyingBroker:
    """Serves once, and never again."""

    def __init__(self, folder: Path) -> None:
        self.log_path = folder / "broker.log"
        self.starts = 0

    def start(self, timeout_s: float) -> None:
        self.starts += 1
        if self.starts > 1:
            raise Unavailable("The broker ended with 1 while starting.")

    def is_running(self) -> bool:
        return False

    def stop(self) -> None:
        """It is gone already."""


def test_a_broker_that_keeps_dying_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, said = DyingBroker(tmp_path), list[str]()
    monkeypatch.setattr("services.embedded.supervisor.make_broker", lambda kind, **_: broker)
    monkeypatch.setattr("services.embedded.supervisor.BACKOFF_S", (0.01,))
    plan = EmbeddedPlan(data_dir=tmp_path, ports=choose_ports(prefer_defaults=False), rooms=())
    supervisor = Supervisor(plan, said.append)
    supervisor.start(ready_timeout_s=20)
    try:
        failure = eventually(lambda: supervisor.failure, what="a failure")
        assert "broker keeps dying" in str(failure) and str(broker.log_path) in str(failure)
        assert broker.starts == MAX_QUICK_DEATHS + 1
        assert supervisor.restarts() == {"broker": MAX_QUICK_DEATHS}
        assert "The broker ended with 1 while starting." in said
    finally:
        supervisor.stop()


def test_a_room_that_cannot_be_started_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room's process ends, and its program is gone by then."""
    program = tmp_path / "room.py"
    program.write_text("import time; time.sleep(300)")
    command = {"gateway": [str(tmp_path / "python"), str(program)]}
    (tmp_path / "python").symlink_to(sys.executable)
    ports = choose_ports(prefer_defaults=False)
    plan = EmbeddedPlan(data_dir=tmp_path, ports=ports, broker="127.0.0.1:1", rooms=("gateway",), commands=command)
    monkeypatch.setattr("services.embedded.supervisor.probes", lambda ports: {"gateway": lambda: True})
    supervisor = Supervisor(plan)
    monkeypatch.setattr(supervisor, "_environment", {"PATH": "", "PYTHONHOME": sys.base_prefix})
    supervisor.start(ready_timeout_s=20)
    try:
        (tmp_path / "python").unlink()
        supervisor.kill("gateway")
        failure = eventually(lambda: supervisor.failure, what="a failure")
        assert "FileNotFoundError" in str(failure)
    finally:
        begun = time.monotonic()
        supervisor.stop()
    assert time.monotonic() - begun < 30
