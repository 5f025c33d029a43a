"""The learner's ingest as a process of its own, which a test may kill."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.embedded.ports import free_port
from services.embedded.process import ManagedProcess
from services.embedded.readiness import grpc_ready
from services.shared.settings.model import BusSettings
from tests.support.facts import DEPLOYMENT
from tests.support.patience import eventually

LEASE_TTL_S = 2.0
READY_S = 90.0


class IngestProcess:
    """One process with the role `ingest` alone. `port` is its gRPC."""

    def __init__(self, folder: Path, bus: BusSettings, name: str) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        settings = {
            "DEPLOYMENT__NAME": DEPLOYMENT,
            "DEPLOYMENT__DATA_DIR": folder,
            "BUS__BOOTSTRAP_SERVERS": bus.bootstrap_servers,
            "BUS__TOPIC_PREFIX": bus.topic_prefix,
            "BUS__EMBEDDED": bus.embedded,
            "LEARNER__PORT": self.port,
            "LEARNER__METRICS_PORT": self.metrics_port,
            "LEARNER__ROLES": json.dumps(["ingest"]),
            "LEARNER__INSTANCE_ID": name,
            "LEARNER__LEASE_TTL_S": LEASE_TTL_S,
        }
        environment = {f"THUMBLOOP_{key}": str(value) for key, value in settings.items()}
        self.process = ManagedProcess(
            [sys.executable, "-m", "services.cli", "learner"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            log_path=folder / f"{name}.log",
        )

    def wait_until_ready(self) -> None:
        """Its health says SERVING."""
        eventually(
            lambda: grpc_ready(self.port) or self.process.returncode is not None,
            within_s=READY_S,
            what=f"ingest is ready: {self.process.log_tail()}",
        )
        assert self.process.returncode is None, self.process.log_tail()


@contextmanager
def ingest_process(folder: Path, bus: BusSettings, name: str, *, ready: bool = True) -> Iterator[IngestProcess]:
    """Started; gone afterwards. Its store is `store.db` in the folder, its log `{name}.log`."""
    ingest = IngestProcess(folder, bus, name)
    ingest.process.start()
    try:
        if ready:
            ingest.wait_until_ready()
        yield ingest
    finally:
        ingest.process.kill_group()
        ingest.process.wait(20)
