"""The gRPC links between rooms, each of which may go through a proxy of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.embedded.ports import LOOPBACK, free_port
from tests.benchmarks.chaos.proxy import TcpProxy

KAFKA = "kafka"
"""The link of all rooms to the broker."""


@dataclass(frozen=True, kw_only=True)
class GrpcLink:
    """One room calls another, at the address in its setting `{called}_address`."""

    caller: str
    called: str

    @property
    def name(self) -> str:
        """For logs and figures."""
        return f"{self.caller}_to_{self.called}"


GRPC_LINKS = (
    GrpcLink(caller="gateway", called="generator"),
    GrpcLink(caller="gateway", called="learner"),
    GrpcLink(caller="generator", called="learner"),
    GrpcLink(caller="reward", called="learner"),
    GrpcLink(caller="learner", called="reward"),
)
"""All that there are: a test compares them with the settings."""
ANSWERS_COME_BY = GRPC_LINKS[0].name
LINKS = (KAFKA, *(link.name for link in GRPC_LINKS))


class ProxiedLinks:
    """A proxy on each gRPC link. Health is asked past them."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        """`ports`: where the rooms listen, by room."""
        own = {link: free_port() for link in GRPC_LINKS}
        self.proxies = {link.name: TcpProxy(port=port, target_port=ports[link.called]) for link, port in own.items()}
        self.overrides: dict[str, dict[str, object]] = {}
        for link, port in own.items():
            self.overrides.setdefault(link.caller, {})[f"{link.called}_address"] = f"{LOOPBACK}:{port}"

    def start(self) -> None:
        """All listen. Raises OSError."""
        for proxy in self.proxies.values():
            proxy.start()

    def stop(self) -> None:
        """All are closed."""
        for proxy in self.proxies.values():
            proxy.stop()
