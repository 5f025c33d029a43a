"""The embedded broker: noida-db, one small binary that speaks Kafka's protocol.

Fit for one machine: it starts in milliseconds and keeps its data. It has no compaction, and a SIGKILL of the broker
itself may lose records that it had acknowledged; claims about crashes of the broker rest on Apache Kafka alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from services.embedded.brokers.broker import Broker
from services.embedded.ports import LOOPBACK
from services.shared.domain.errors import Misconfigured


def noida_db_binary() -> Path:
    """The binary inside the package, run without its wrapper, which may miss signals. Raises Misconfigured."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise Misconfigured("The embedded broker is not installed. Run `pip install thumbloop[local]`.")
    binary = Path(spec.origin).parent / "noida-db"
    if not binary.is_file():
        raise Misconfigured(f"{binary} is missing. Run `pip install --force-reinstall noida-db`.")
    return binary


class EmbeddedBroker(Broker):
    """noida-db with Kafka alone."""

    embedded = True

    def _prepare(self) -> list[str]:
        binary = noida_db_binary()
        if not binary.stat().st_mode & 0o111:
            raise Misconfigured(f"{binary} may not be executed. Run `chmod +x {binary}`.")
        return [
            *(str(binary), "start", "--only", "kafka"),
            *("--kafka-port", str(self.port), "--host", LOOPBACK, "--data-dir", str(self.data_dir)),
        ]
