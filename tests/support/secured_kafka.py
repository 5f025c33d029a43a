"""One node of Apache Kafka with three ports: plain, SASL_SSL (SCRAM-SHA-512), and SSL that asks for a certificate.

It looks every half second for what has passed its retention, where Kafka does every five minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from services.embedded.brokers import ApacheBroker, Listener
from services.embedded.ports import LOOPBACK, free_ports
from tests.support.brokers import START_TIMEOUT_S
from tests.support.certificates import Authority, KeyPair

RETENTION_CHECK_MS = 500
USER, PASSWORD = "thumbloop", "correct horse"


@dataclass(frozen=True, kw_only=True)
class SecuredKafka:
    """`broker` may be killed and started again; its ports and users stay."""

    broker: ApacheBroker
    authority: Authority
    client: KeyPair
    """A client's certificate that the broker trusts."""
    sasl_port: int
    mutual_port: int

    def sasl(self, **changes: Any) -> dict[str, Any]:
        """Bus settings for SASL_SSL."""
        return {
            "bootstrap_servers": f"{LOOPBACK}:{self.sasl_port}",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
            "ssl_cafile": self.authority.certificate,
        } | changes

    def mutual(self, **changes: Any) -> dict[str, Any]:
        """Bus settings for mutual TLS."""
        return {
            "bootstrap_servers": f"{LOOPBACK}:{self.mutual_port}",
            "security_protocol": "SSL",
            "ssl_cafile": self.authority.certificate,
            "ssl_certfile": self.client.certificate,
            "ssl_keyfile": self.client.key,
        } | changes


class TidyBroker(ApacheBroker):
    """Deletes what has passed its retention soon."""

    def _prepare(self) -> list[str]:
        own = {
            "log.retention.check.interval.ms": RETENTION_CHECK_MS,
            "log.initial.task.delay.ms": RETENTION_CHECK_MS,
            "log.segment.delete.delay.ms": 0,
        }
        return [*super()._prepare(), *(part for name in own for part in ("--override", f"{name}={own[name]}"))]


@contextmanager
def running_secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Started, with its user; gone afterwards."""
    authority = Authority(folder / "certificates", "authority")
    server = authority.issue("broker")
    plain_port, sasl_port, mutual_port = free_ports(3)
    stores = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server.bundle),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
    }
    scram = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    }
    broker = TidyBroker(
        port=plain_port,
        data_dir=folder / "kafka",
        listeners=[
            Listener(name="USERS", protocol="SASL_SSL", port=sasl_port, properties=stores | scram),
            Listener(
                name="MUTUAL", protocol="SSL", port=mutual_port, properties=stores | {"ssl.client.auth": "required"}
            ),
        ],
    )
    broker.start(START_TIMEOUT_S)
    try:
        _add_user(broker)
        yield SecuredKafka(
            broker=broker,
            authority=authority,
            client=authority.issue("client"),
            sasl_port=sasl_port,
            mutual_port=mutual_port,
        )
    finally:
        broker.stop()


def _add_user(broker: ApacheBroker) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    try:
        admin.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(
                    user=USER, mechanism=ScramMechanism.SCRAM_SHA_512, iterations=4096, password=PASSWORD
                )
            ]
        )
    finally:
        admin.close()
