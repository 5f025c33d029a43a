"""A managed process ends with all of its group, whoever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.embedded.ports import free_ports, is_free
from services.embedded.process import ManagedProcess
from services.shared.domain.errors import Unavailable

DEADLINE_S = 15.0
SLEEPS = "import time\ntime.sleep(300)\n"
HAS_A_CHILD = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
{after}
"""
OWNS_A_PROCESS = """
import pathlib, sys, time
from services.embedded.process import ManagedProcess
folder = pathlib.Path(sys.argv[1])
child = ManagedProcess([sys.executable, str(folder / "child.py"), str(folder / "grandchild")], log_path=folder / "log")
child.start()
(folder / "owned").write_text(str(child.pid))
time.sleep(300)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Zombies are dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_pid(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text().isdigit(), f"{path.name} was never written")
    return int(path.read_text())


def started(code: str, tmp_path: Path, *arguments: str) -> ManagedProcess:
    process = ManagedProcess([sys.executable, "-c", code, *arguments], log_path=tmp_path / "logs" / "log.txt")
    process.start()
    return process


def test_the_exit_code_and_the_output_are_kept(tmp_path: Path) -> None:
    process = started("import sys\nprint('some words')\nsys.exit(3)", tmp_path)
    assert process.wait(DEADLINE_S) == 3
    assert process.returncode == 3
    assert "some words" in process.log_tail()
    assert process.peak_memory_mib() > 1
    process.kill_group()
    assert process.terminate(timeout_s=1) == 3


def test_it_leads_a_group_of_its_own(tmp_path: Path) -> None:
    process = started(SLEEPS, tmp_path)
    assert process.returncode is None
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    assert process.terminate(timeout_s=DEADLINE_S) == -signal.SIGTERM


def test_what_ignores_sigterm_is_killed_after_the_timeout(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ignores = (
        f"import pathlib, signal\nsignal.signal(15, signal.SIG_IGN)\npathlib.Path({str(ready)!r}).touch()\n{SLEEPS}"
    )
    process = started(ignores, tmp_path)
    wait_for(ready.exists, "never ready")
    with pytest.raises(Unavailable):
        process.wait(0.1)
    assert process.terminate(timeout_s=0.2) == -signal.SIGKILL


@pytest.mark.parametrize("end", ["kill_group", "terminate", "by itself"])
def test_grandchildren_end_with_it(tmp_path: Path, end: str) -> None:
    after = "" if end == "by itself" else "time.sleep(300)"
    process = started(HAS_A_CHILD.format(after=after), tmp_path, str(tmp_path / "pid"))
    grandchild = read_pid(tmp_path / "pid")
    if end == "kill_group":
        process.kill_group()
    elif end == "terminate":
        process.terminate(timeout_s=DEADLINE_S)
    process.wait(DEADLINE_S)
    wait_for(lambda: not is_alive(grandchild), "the grandchild lives on")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_all_its_group_when_its_owner_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "child.py").write_text(HAS_A_CHILD.format(after="time.sleep(300)"))
    owner = subprocess.Popen([sys.executable, "-c", OWNS_A_PROCESS, str(tmp_path)], start_new_session=True)
    child, grandchild = read_pid(tmp_path / "owned"), read_pid(tmp_path / "grandchild")
    assert is_alive(child)
    assert is_alive(grandchild)
    owner.send_signal(number)
    owner.wait(DEADLINE_S)
    wait_for(lambda: not is_alive(child) and not is_alive(grandchild), "something outlived its owner")


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(map(is_free, ports))
