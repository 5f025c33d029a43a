"""Brokers that the embedded run and the tests start: `embedded` (noida-db) and `apache` (one node of Apache Kafka)."""

from __future__ import annotations

from pathlib import Path

from services.embedded.brokers.apache import ApacheBroker, Listener, kafka_home
from services.embedded.brokers.broker import Broker
from services.embedded.brokers.embedded import EmbeddedBroker
from services.shared.domain.errors import Misconfigured

__all__ = ["ApacheBroker", "Broker", "EmbeddedBroker", "Listener", "kafka_home", "make_broker"]


def make_broker(kind: str, *, port: int, data_dir: Path) -> Broker:
    """A broker that is not started yet: "embedded" or "apache". Raises Misconfigured for what it cannot run."""
    match kind:
        case "embedded":
            return EmbeddedBroker(port=port, data_dir=data_dir)
        case "apache":
            return ApacheBroker(port=port, data_dir=data_dir)
        case _:
            raise Misconfigured(f"There is no broker {kind!r}. Use embedded, apache, or HOST:PORT of one that runs.")
