"""What the supervisor says when it can do no more."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.embedded.broker_keeper import MAX_QUICK_DEATHS
from services.embedded.plan import EmbeddedPlan, choose_ports
from services.embedded.supervisor import Supervisor
from services.shared.domain.errors import Unavailable
from tests.support.patience import eventually


class DyingBroker:
    """Serves once, and never again; `hangs_s`: so long do its later starts take."""

    def __init__(self, folder: Path, hangs_s: float) -> None:
        self.log_path = folder / "broker.log"
        self.starts = 0
        self._hangs_s = hangs_s

    def start(self, timeout_s: float, *, given_up: Callable[[], bool] = lambda: False) -> None:
        self.starts += 1
        if self.starts > 1:
            time.sleep(self._hangs_s)
            raise Unavailable("The broker ended with 1 while starting.")

    def is_running(self) -> bool:
        return False

    def stop(self) -> None:
        """It is gone already."""


@pytest.mark.parametrize("hangs_s", [0.0, 0.1])
def test_a_broker_that_keeps_dying_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs_s: float) -> None:
    broker, said = DyingBroker(tmp_path, hangs_s), list[str]()
    monkeypatch.setattr("services.embedded.broker_keeper.STABLE_AFTER_S", 0.09)
    monkeypatch.setattr("services.embedded.supervisor.make_broker", lambda kind, **_: broker)
    monkeypatch.setattr("services.embedded.broker_keeper.BACKOFF_S", (0.01,))
    plan = EmbeddedPlan(data_dir=tmp_path, ports=choose_ports(prefer_defaults=False), rooms=())
    supervisor = Supervisor(plan, said.append)
    supervisor.start(ready_timeout_s=20)
    try:
        failure = eventually(lambda: supervisor.failure, what="a failure")
        assert "broker keeps dying" in str(failure) and str(broker.log_path) in str(failure)
        assert MAX_QUICK_DEATHS <= broker.starts - 1 <= MAX_QUICK_DEATHS + 1, "the first run may count as a stable one"
        assert supervisor.restarts() == {"broker": broker.starts - 1}
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


def test_a_start_that_is_given_up_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room lives, and is never ready."""
    command = {"gateway": [sys.executable, "-c", "import time; time.sleep(300)"]}
    ports = choose_ports(prefer_defaults=False)
    plan = EmbeddedPlan(data_dir=tmp_path, ports=ports, broker="127.0.0.1:1", rooms=("gateway",), commands=command)
    asked = threading.Event()

    def is_ready() -> bool:
        asked.set()
        return False

    monkeypatch.setattr("services.embedded.supervisor.probes", lambda ports: {"gateway": is_ready})
    supervisor = Supervisor(plan)
    with ThreadPoolExecutor() as pool:
        start = pool.submit(supervisor.start, ready_timeout_s=200)
        try:
            assert asked.wait(20)
            supervisor.give_up()
            with pytest.raises(Unavailable, match="given up"):
                start.result(timeout=20)
        finally:
            codes = supervisor.stop()
    assert set(codes) == {"gateway"}
