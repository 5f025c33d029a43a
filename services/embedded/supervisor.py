"""Starts broker and services, restarts what dies, drains on stop, leaves nothing behind.

Each process leads its own process group and is ended by its own id; whatever ends a service ends its whole group.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.embedded.broker_keeper import BACKOFF_S, MAX_QUICK_DEATHS, STABLE_AFTER_S, BrokerKeeper
from services.embedded.brokers import make_broker
from services.embedded.plan import EmbeddedPlan
from services.embedded.process import ManagedProcess
from services.embedded.readiness import probes
from services.shared.domain.errors import Unavailable

READY_TIMEOUT_S = 240.0
"""Long, for a machine that others use too. A room that dies is told at once: only one that hangs takes so long."""
DRAIN_TIMEOUT_S = 60.0
"""Longer than any room takes to drain by itself (each ends its own waits), so that SIGKILL meets a room that hangs."""
POLL_S = 0.2
GIVE_UP_S = 15.0
"""Until a start that nobody waits for any more has ended."""

Report = Callable[[str], None]


@dataclass
class Service:
    """One room's process, over all its incarnations."""

    name: str
    process: ManagedProcess
    started_at: float
    quick_deaths: int = 0
    restarts: int = 0
    peak_memory_mib: float = 0.0
    restart_at: float | None = None
    killed: bool = False
    """By `Supervisor.kill`, which says nothing of the room's health."""


class Supervisor:
    """Runs an `EmbeddedPlan`. `start` returns when everything is ready; `stop` when everything is gone."""

    def __init__(self, plan: EmbeddedPlan, report: Report = lambda line: None) -> None:
        self.plan = plan
        self.failure: str | None = None
        """Why the run cannot go on; None while it can."""
        self._report = report
        self._environment = plan.environment()
        self._services: dict[str, Service] = {}
        self._keeper: BrokerKeeper | None = None
        """Of the broker, where the run has one of its own."""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, *, ready_timeout_s: float = READY_TIMEOUT_S) -> None:
        """Raises Misconfigured (something is missing) or Unavailable (something did not become ready, or `give_up`)."""
        self.plan.data_dir.mkdir(parents=True, exist_ok=True)
        if ":" not in self.plan.broker:
            self._report(f"starting the {self.plan.broker} broker")
            broker = make_broker(
                self.plan.broker, port=self.plan.ports["kafka"], data_dir=self.plan.data_dir / "broker"
            )
            self._keeper = BrokerKeeper(broker, report=self._report, stopping=self._stopping)
            self._keeper.start(ready_timeout_s)
        for room in self.plan.rooms:
            self._report(f"starting {room}")
            self._services[room] = Service(name=room, process=self._launch(room), started_at=time.monotonic())
        self._monitor.start()
        self._wait_ready(time.monotonic() + ready_timeout_s)

    def give_up(self) -> None:
        """Ends a `start` that is under way. Signal handlers may call it; `stop` is to follow."""
        self._stopping.set()

    def stop(self) -> dict[str, int]:
        """Drains the rooms, last to start first, then the broker. Exit codes by name. Twice is once."""
        self._stopping.set()
        if self._monitor.is_alive():
            self._monitor.join(timeout=GIVE_UP_S)
        codes: dict[str, int] = {}
        for name in reversed(list(self._services)):
            service = self._services[name]
            self._note_memory(service)
            self._report(f"draining {name}")
            codes[name] = service.process.terminate(timeout_s=DRAIN_TIMEOUT_S)
        if self._keeper is not None:
            self._keeper.broker.stop()
        return codes

    def kill(self, room: str) -> bool:
        """SIGKILL to the room's whole process group, as a test or a power cut would. It is restarted.

        False: it was dead already.
        """
        with self._lock:
            service = self._services[room]
            self._note_memory(service)
            service.killed = service.process.returncode is None
            service.process.kill_group()
            return service.killed

    def kill_broker(self) -> None:
        """The same to the broker, where this run has one of its own."""
        if self._keeper is not None:
            self._keeper.broker.kill()

    def restarts(self) -> dict[str, int]:
        """How often each room, and a broker of our own, was started again."""
        restarts = {name: service.restarts for name, service in self._services.items()}
        return restarts if self._keeper is None else restarts | {"broker": self._keeper.restarts}

    def peak_memory_mib(self) -> dict[str, float]:
        """Greatest resident memory of each process so far, broker included."""
        with self._lock:
            for service in self._services.values():
                self._note_memory(service)
            peaks = {name: service.peak_memory_mib for name, service in self._services.items()}
        if self._keeper is not None:
            peaks["broker"] = self._keeper.broker.peak_memory_mib()
        return peaks

    def is_ready(self, room: str) -> bool:
        """Asks the room."""
        return probes(self.plan.ports)[room]()

    def _launch(self, room: str) -> ManagedProcess:
        process = ManagedProcess(self.plan.command(room), env=self._environment, log_path=self.plan.log_path(room))
        process.start()
        return process

    def _wait_ready(self, deadline: float) -> None:
        asked = probes(self.plan.ports)
        waiting = [room for room in self.plan.rooms if room in asked]
        while waiting:
            if self.failure:
                raise Unavailable(self.failure)
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.plan.log_path(room)) for room in waiting)
                raise Unavailable(f"{', '.join(waiting)} did not become ready in time. See {logs}.")
            for room in list(waiting):
                if asked[room]():
                    self._report(f"{room} is ready")
                    waiting.remove(room)
            if self._stopping.wait(POLL_S):  # health is asked, not told
                raise Unavailable("The start was given up.")

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                if self._keeper is not None:
                    self.failure = self._keeper.look(READY_TIMEOUT_S) or self.failure
                with self._lock:
                    for service in self._services.values():
                        self._revive(service)
            except Exception as error:  # e.g. no process can be started any more; whoever owns the run must hear of it
                self.failure = (
                    f"The supervisor cannot watch over its services any more: {type(error).__name__}: {error}"
                )
                return

    def _revive(self, service: Service) -> None:
        """Restarts a dead process after a back-off; gives up on one that dies again and again at once."""
        now = time.monotonic()
        if service.restart_at is not None:
            if now >= service.restart_at and not self._stopping.is_set():
                service.process, service.started_at, service.restart_at = self._launch(service.name), now, None
                service.restarts += 1
            return
        code = service.process.returncode
        if code is None:
            return
        innocent = service.killed or now - service.started_at > STABLE_AFTER_S
        service.quick_deaths, service.killed = 0 if innocent else service.quick_deaths + 1, False
        log = self.plan.log_path(service.name)
        if service.quick_deaths > MAX_QUICK_DEATHS:
            self.failure = f"{service.name} keeps dying (exit code {code}). Its log says why: {log}"
            return
        self._report(f"{service.name} ended with {code}; starting it again (log: {log})")
        service.restart_at = now + BACKOFF_S[min(service.quick_deaths, len(BACKOFF_S) - 1)]

    def _note_memory(self, service: Service) -> None:
        service.peak_memory_mib = max(service.peak_memory_mib, service.process.peak_memory_mib())
