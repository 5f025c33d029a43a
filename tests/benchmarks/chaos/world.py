"""The world that is hit: broker, proxies on the links, and the four services under their supervisor."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.brokers import ApacheBroker, Broker, EmbeddedBroker
from services.embedded.plan import ROOMS, EmbeddedPlan, Overrides, choose_ports
from services.embedded.ports import free_port
from services.embedded.supervisor import Supervisor
from tests.benchmarks.chaos.links import KAFKA, ProxiedLinks
from tests.benchmarks.chaos.proxy import TcpProxy
from tests.support.tiny_model import build_tiny_model

BROKER = "broker"
VICTIMS = (*ROOMS, BROKER)
START_TIMEOUT_S = 120.0

SHARED: Overrides = {
    "access": {
        "anonymous_chat": True,
        "key_requests_per_s": 1000.0,
        "key_burst": 1000,
        "rater_statements_per_s": 1000.0,
        "rater_burst": 1000,
        "rater_reads_per_s": 1000.0,
        "rater_read_burst": 1000,
    },
    "bus": {"ack_timeout_s": 3.0},
    "learner": {
        "unrated_wait_s": 0.5,
        "reward_min_new_thumbs": 4,
        "reward_min_auroc_low95": 0.0,
        "reward_min_thumbs_of_each": 0,
        "lease_ttl_s": 2.0,
        "acknowledge_timeout_s": 15.0,
        "announce_interval_s": 5.0,
        "ppo": {"rollouts_per_update": 16, "min_reward_sd": 0.0},
        "gate": {"samples": 2, "max_kl_nats": 1e6, "min_distinct2_ratio": 0.0, "min_entropy_ratio": 0.0},
    },
}
"""Approval is not judged here: the reward model's skill gate is open, and the gate's bounds are wide."""

SCRIPTED: Overrides = {
    "generator": {"engine": "scripted", "scripted_token_interval_s": 0.01},
    "reward": {"scorer": "scripted"},
    "learner": {"trainer": "scripted"},
}


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """`model`: scripted (no torch) or tiny (a real Llama of random weights, trained with PPO).

    `commands` are command lines other than `thumbloop ROOM`. Apache Kafka is reached through the proxy; the embedded
    broker, which advertises its own address, directly. `grpc_proxies`: rooms reach one another through proxies, too.
    """

    broker: str = "apache"
    model: str = "scripted"
    orphan_after_s: float = 6.0
    grpc_proxies: bool = False
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ProxiedApacheBroker(ApacheBroker):
    """Advertises the proxy, so that no client gets past it."""

    def __init__(self, *, port: int, data_dir: Path, advertised_port: int) -> None:
        super().__init__(port=port, data_dir=data_dir)
        self._advertised_port = advertised_port

    def _write_properties(self) -> Path:
        path = super()._write_properties()
        own = f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}"
        text = path.read_text(encoding="utf-8")
        assert own in text, "Kafka's properties name no advertised listener to replace"
        path.write_text(text.replace(own, f"advertised.listeners=PLAINTEXT://127.0.0.1:{self._advertised_port}"))
        return path


class World:
    """Starts, is hit, stops. Blocking; nothing of it is left after `stop`."""

    def __init__(self, settings: WorldSettings, data_dir: Path, report: Callable[[str], None]) -> None:
        self.settings = settings
        self.data_dir = data_dir
        ports = choose_ports(prefer_defaults=False)
        self.proxy: TcpProxy | None = None
        self.broker: Broker
        if settings.broker == "apache":
            own_port = free_port()
            self.proxy = TcpProxy(port=ports["kafka"], target_port=own_port)
            self.broker = ProxiedApacheBroker(
                port=own_port, data_dir=data_dir / "broker", advertised_port=ports["kafka"]
            )
        else:
            self.broker = EmbeddedBroker(port=ports["kafka"], data_dir=data_dir / "broker")
        self.links = ProxiedLinks(ports) if settings.grpc_proxies else None
        self.plan = EmbeddedPlan(
            data_dir=data_dir,
            ports=ports,
            broker=f"127.0.0.1:{ports['kafka']}",
            overrides=self._overrides(),
            commands=settings.commands,
        )
        self.supervisor = Supervisor(self.plan, report)

    @property
    def store_path(self) -> Path:
        """The learner's SQLite file."""
        return self.data_dir / "store.db"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the releases."""
        return self.data_dir / "checkpoints"

    def carried(self) -> dict[str, int]:
        """Connections that each proxied link has carried, by its name."""
        proxies = {} if self.links is None else dict(self.links.proxies)
        if self.proxy is not None:
            proxies[KAFKA] = self.proxy
        return {name: proxy.carried for name, proxy in proxies.items()}

    def start(self) -> None:
        """Returns when everything is ready. Raises Misconfigured, Unavailable."""
        if self.settings.model == "tiny":
            build_tiny_model(self.data_dir / "model")
        if self.proxy is not None:
            self.proxy.start()
        if self.links is not None:
            self.links.start()
        self.broker.start(START_TIMEOUT_S)
        self.supervisor.start(ready_timeout_s=START_TIMEOUT_S)

    def stop(self) -> dict[str, int]:
        """Rooms drain, the broker goes last. Exit codes by room."""
        try:
            return self.supervisor.stop()
        finally:
            self.broker.stop()
            if self.links is not None:
                self.links.stop()
            if self.proxy is not None:
                self.proxy.stop()

    def kill(self, victim: str) -> bool:
        """SIGKILL to the victim's whole process group; False: it was dead already.

        The supervisor restarts rooms; see `restart_broker` for the broker.
        """
        if victim != BROKER:
            return self.supervisor.kill(victim)
        alive = self.broker.is_running()
        self.broker.kill()
        if self.proxy is not None:
            self.proxy.shut()
        return alive

    def restart_broker(self) -> None:
        """Returns when it serves again. Raises Unavailable."""
        if self.proxy is not None:
            self.proxy.heal()
            self.proxy.open()
        self.broker.start(START_TIMEOUT_S)

    def is_up(self, victim: str) -> bool:
        """It lives and says that it is ready."""
        return self.broker.is_running() if victim == BROKER else self.supervisor.is_ready(victim)

    def wait_up(self, within_s: float) -> list[str]:
        """Who is not up at the deadline; empty: all are."""
        deadline = time.monotonic() + within_s
        while down := [victim for victim in VICTIMS if not self.is_up(victim)]:
            if time.monotonic() > deadline or self.supervisor.failure:
                return down
            time.sleep(0.2)
        return []

    def _overrides(self) -> Overrides:
        settings = self.settings
        own: dict[str, Mapping[str, object]] = {
            "deployment": {"log_json": True},
            "bus": {"embedded": settings.broker != "apache"},
            "learner": {"orphan_after_s": settings.orphan_after_s},
        }
        by_proxies: Overrides = {} if self.links is None else self.links.overrides
        if settings.model == "tiny":
            own["model"] = {"path": str((self.data_dir / "model").resolve())}
            return merged(SHARED, own, by_proxies)
        return merged(SHARED, SCRIPTED, own, by_proxies)


def merged(*layers: Overrides) -> Overrides:
    """Sections of all layers; the later one wins a setting."""
    sections: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, values in layer.items():
            sections.setdefault(section, {}).update(values)
    return sections


def module_command(module: str) -> tuple[str, ...]:
    """Runs a module with this interpreter."""
    return (sys.executable, "-m", module)
