"""What the supervisor says when it can do no more."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from services.embedded.plan import EmbeddedPlan, choose_ports
from services.embedded.supervisor import Supervisor
from tests.support.patience import eventually


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
