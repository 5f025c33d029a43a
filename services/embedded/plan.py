"""What an embedded run consists of: rooms, ports, folders, and the environment that each process gets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.ports import free_port, is_free

ROOMS = ("learner", "reward", "generator", "gateway")
"""In the order in which they start; they stop the other way round, so that accepted work is finished downstream."""

DEFAULT_PORTS = {
    "gateway": 8080,
    "gateway_control": 8081,
    "generator": 8051,
    "generator_metrics": 9101,
    "reward": 8052,
    "reward_metrics": 9102,
    "learner": 8053,
    "learner_metrics": 9103,
    "kafka": 9092,
}
"""Below the range that Linux gives to connections: one that waits for its server could take that server's port."""

Overrides = Mapping[str, Mapping[str, object]]
"""Settings by section and name; nested sections as mappings."""


def choose_ports(*, prefer_defaults: bool) -> dict[str, int]:
    """A free port for each listener: the documented one where it is free and wanted."""
    taken: set[int] = set()
    ports = {}
    for name, default in DEFAULT_PORTS.items():
        port = default if prefer_defaults and is_free(default) else free_port()
        while port in taken:
            port = free_port()
        taken.add(port)
        ports[name] = port
    return ports


@dataclass(frozen=True, kw_only=True)
class EmbeddedPlan:
    """One embedded run."""

    data_dir: Path
    ports: Mapping[str, int]
    broker: str = "embedded"
    """"embedded", "apache" or HOST:PORT of one that is there."""
    overrides: Overrides = field(default_factory=dict)
    rooms: tuple[str, ...] = ROOMS
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Command lines of rooms that run as something else than `thumbloop ROOM`, e.g. under a test's instruments."""

    def command(self, room: str) -> list[str]:
        """Command line of a room's process."""
        return list(self.commands.get(room, (sys.executable, "-m", "services.cli", room)))

    @property
    def page_url(self) -> str:
        """Address of the chat page and the public API."""
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka is."""
        return self.broker if ":" in self.broker else f"127.0.0.1:{self.ports['kafka']}"

    @property
    def secrets_dir(self) -> Path:
        """The run's keys, among them what its rooms prove themselves with to one another."""
        return self.data_dir / "secrets"

    def log_path(self, name: str) -> Path:
        """Standard output and error of a process."""
        return self.data_dir / "logs" / f"{name}.log"

    def environment(self) -> dict[str, str]:
        """Environment of every service: the caller's, this run's addresses, one torch thread, then the overrides."""
        ports = self.ports
        learner = f"127.0.0.1:{ports['learner']}"
        settings: dict[str, Mapping[str, object]] = {
            "deployment": {
                "data_dir": str(self.data_dir.resolve()),
                "secrets_dir": str(self.secrets_dir.resolve()),
            },
            "access": {"anonymous_chat": True},
            "bus": {"bootstrap_servers": self.bootstrap_servers, "embedded": self.broker == "embedded"},
            "gateway": {
                "port": ports["gateway"],
                "control_port": ports["gateway_control"],
                "generator_address": f"127.0.0.1:{ports['generator']}",
                "learner_address": learner,
            },
            "generator": {
                "port": ports["generator"],
                "metrics_port": ports["generator_metrics"],
                "learner_address": learner,
            },
            "reward": {"port": ports["reward"], "metrics_port": ports["reward_metrics"], "learner_address": learner},
            "learner": {
                "port": ports["learner"],
                "metrics_port": ports["learner_metrics"],
                "reward_address": f"127.0.0.1:{ports['reward']}",
            },
        }
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        quiet = {
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        return {**os.environ, **one_thread, **quiet, **flatten(settings), **flatten(self.overrides)}


def flatten(sections: Mapping[str, object], prefix: str = "THUMBLOOP_") -> dict[str, str]:
    """Nested settings to environment variables, e.g. THUMBLOOP_LEARNER__PPO__EPOCHS; lists as JSON."""
    flat: dict[str, str] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name.upper()}__")
        else:
            flat[f"{prefix}{name.upper()}"] = json.dumps(value) if isinstance(value, (list, tuple)) else str(value)
    return flat
