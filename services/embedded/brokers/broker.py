"""What a broker of the embedded run can do, and what both kinds share."""

from __future__ import annotations

import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from services.embedded.ports import LOOPBACK
from services.embedded.process import ManagedProcess
from services.shared.domain.errors import Unavailable

POLL_S = 0.05
STOP_TIMEOUT_S = 20.0
PROBE_TIMEOUT_MS = 2_000


class Broker(ABC):
    """One broker on the loopback address. Its data outlive it; it may be started again after `stop` or `kill`."""

    embedded: bool
    """True for the kind that may lose its tail when killed."""

    def __init__(self, *, port: int, data_dir: Path) -> None:
        self.port = port
        self.data_dir = data_dir
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self._process: ManagedProcess | None = None
        self._peak_memory_mib = 0.0

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT."""
        return f"{LOOPBACK}:{self.port}"

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Makes the data folder ready; the command line that runs the broker. Raises Misconfigured."""

    def start(self, timeout_s: float, *, given_up: Callable[[], bool] = lambda: False) -> None:
        """Returns when it answers Kafka's protocol. Raises Misconfigured (something is missing) or Unavailable; it
        does not run then. `given_up`: nobody waits for it any more.
        """
        if self._process is not None and self._process.returncode is None:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        process = ManagedProcess(self._prepare(), log_path=self.log_path)
        process.start()
        self._process = process
        deadline = time.monotonic() + timeout_s
        while not _serves(self.port):
            if process.returncode is not None:
                raise Unavailable(
                    f"The broker ended with {process.returncode} while starting; its log ends:\n{process.log_tail()}"
                )
            if given_up():
                self.kill()
                raise Unavailable("The broker was ended while it was starting, since nobody waits for it any more.")
            if time.monotonic() > deadline:
                self.kill()
                raise Unavailable(
                    f"The broker did not serve within {timeout_s:g} s; its log ends:\n{process.log_tail()}"
                )
            time.sleep(POLL_S)  # a port tells nobody when it is open

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """In good order, nothing is lost; SIGKILL after the timeout. Twice is once."""
        if self._process is not None:
            self._note_memory()
            self._process.terminate(timeout_s)

    def kill(self) -> None:
        """SIGKILL, as a power cut would; returns when it is gone."""
        if self._process is not None:
            self._note_memory()
            self._process.kill_group()
            self._process.wait(STOP_TIMEOUT_S)

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    def peak_memory_mib(self) -> float:
        """Greatest resident memory so far, over all starts."""
        self._note_memory()
        return self._peak_memory_mib

    def _note_memory(self) -> None:
        if self._process is not None:
            self._peak_memory_mib = max(self._peak_memory_mib, self._process.peak_memory_mib())


def _serves(port: int) -> bool:
    """Whether a metadata request is answered with a broker in it. A closed port is found out first, and quietly."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    opened: list[KafkaNetClient] = []

    def open_client(**configs: Any) -> Any:
        opened.append(KafkaNetClient(**configs))
        return opened[-1]

    logger = logging.getLogger("kafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=f"{LOOPBACK}:{port}",
            bootstrap_timeout_ms=PROBE_TIMEOUT_MS,
            reconnect_backoff_max_ms=200,
            kafka_client=open_client,
        )
        admin.close()
    except (KafkaError, OSError):
        for client in opened:
            client.close()
        return False
    finally:
        logger.setLevel(level)
    return True
