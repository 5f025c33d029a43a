"""A child process that leads its own process group and ends with all of its group.

A group is ended when its leader is terminated, when the leader dies by itself, and, through the `guardian`, when the
process that started it is killed. (Linux's parent-death signal would not do: it fires when the starting *thread* ends,
and spares grandchildren.)
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.embedded import guardian
from services.shared.domain.errors import Unavailable

POLL_S = 0.02
KILL_TIMEOUT_S = 10.0
LOG_TAIL_BYTES = 4_000


class ManagedProcess:
    """One child. Safe to use from any thread; every wait has a deadline."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, log_path: Path) -> None:
        """`env` None inherits the environment. Standard output and error are appended to `log_path`."""
        self.argv = list(argv)
        self.log_path = log_path
        self._env = None if env is None else dict(env)
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._returncode: int | None = None
        self._peak_kib = 0

    def start(self) -> None:
        """Raises OSError when the program cannot be run. Once a process."""
        if self._popen is not None:
            raise RuntimeError("A ManagedProcess is started once; make another.")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                self.argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _GUARD.add(self._popen.pid)

    @property
    def pid(self) -> int:
        """Id of the leader and of its group."""
        if self._popen is None:
            raise RuntimeError("The process has not been started.")
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        if self._popen is None:
            return None
        with self._lock:
            if self._returncode is None and self._has_exited():
                self._reap()
            return self._returncode

    def wait(self, timeout_s: float) -> int:
        """The exit code. Raises Unavailable if it still runs after the timeout."""
        deadline = time.monotonic() + timeout_s
        while (code := self.returncode) is None:
            if time.monotonic() >= deadline:
                raise Unavailable(f"{self.argv[0]} (pid {self.pid}) did not end within {timeout_s:g} s.")
            time.sleep(POLL_S)  # the exit may be reaped by another thread, so it is looked at, not waited for
        return code

    def terminate(self, timeout_s: float) -> int:
        """SIGTERM to the group; SIGKILL to what is left of it after the timeout, or once the leader is gone."""
        self._signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except Unavailable:
            self.kill_group()
            return self.wait(KILL_TIMEOUT_S)

    def kill_group(self) -> None:
        """SIGKILL to the whole group, as a power cut would."""
        self._signal(signal.SIGKILL)

    def peak_memory_mib(self) -> float:
        """Greatest resident memory of the leader so far, in MiB."""
        if self._popen is None:
            return 0.0
        with self._lock:
            if self._returncode is None:
                self._peak_kib = max(self._peak_kib, _peak_of_running_kib(self._popen.pid))
            return self._peak_kib / 1024

    def log_tail(self) -> str:
        """The end of the log, for error messages."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - LOG_TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _signal(self, number: signal.Signals) -> None:
        """To the group; nothing if the leader was reaped, since its id may belong to another by now."""
        with self._lock:
            if self._popen is not None and self._returncode is None:
                os.killpg(self._popen.pid, number)

    def _has_exited(self) -> bool:
        """Looks without reaping, so that the group's id stays ours."""
        assert self._popen is not None
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _reap(self) -> None:
        """Ends what the leader left behind, then takes its exit code."""
        assert self._popen is not None
        pid = self._popen.pid
        os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        self._returncode = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self._peak_kib = max(self._peak_kib, usage.ru_maxrss)
        _GUARD.remove(pid)


def _peak_of_running_kib(pid: int) -> int:
    """VmHWM of /proc; 0 for a process that is ending."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


class _Guard:
    """This process's side of the guardian, started with the first child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._groups: set[int] = set()

    def add(self, group: int) -> None:
        with self._lock:
            self._groups.add(group)
            if self._process is None or self._process.poll() is not None:
                self._start()
            else:
                self._write(f"+{group}\n")

    def remove(self, group: int) -> None:
        with self._lock:
            self._groups.discard(group)
            if self._process is not None and self._process.poll() is None:
                self._write(f"-{group}\n")

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", guardian.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        atexit.register(self._close, self._process)
        for group in self._groups:
            self._write(f"+{group}\n")

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait(KILL_TIMEOUT_S)

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        """At a regular end too the guardian ends what was forgotten."""
        if process.stdin is not None:
            process.stdin.close()
        process.wait(KILL_TIMEOUT_S)


_GUARD = _Guard()
