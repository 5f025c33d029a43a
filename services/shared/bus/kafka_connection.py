"""How clients of Kafka are configured and made, the same for producers, consumers and administration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from services.shared.bus.interface import Place
from services.shared.bus.kafka_client import open_client
from services.shared.bus.kafka_diagnosis import UNREACHABLE, Diagnosis, diagnose
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from services.shared.telemetry.log import get_logger

BOOTSTRAP_TIMEOUT_MS = 2_000
METADATA_MAX_AGE_MS = 30_000
"""So soon readers learn of partitions that were added."""
RECONNECT_BACKOFF_MAX_MS = 1_000
"""The client's default of 30 s leaves it silent for long after Kafka is back."""
SET_UP_WITHIN = {"socket_connection_setup_timeout_ms": 3_000, "socket_connection_setup_timeout_max_ms": 5_000}
"""A broker that accepts connections and says nothing is given up; the client's defaults are 10 s, growing to 30 s."""
DIAGNOSIS_INTERVAL_S = 10.0
"""The cause of a failure is looked for at most so often; it takes a few connections of its own."""
RETRY_AFTER_S = 1.0
LINGER_MS = 3
"""How long an event waits for others to share its request, each of which costs the client as much as many events."""
RECORD_OVERHEAD_BYTES = 16_384
"""Room for key, headers and framing above the largest event."""

_log = get_logger()


def security_options(settings: BusSettings) -> dict[str, Any]:
    """The client's options for how connections are secured."""
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_check_hostname"] = settings.ssl_check_hostname
        files = {
            "ssl_cafile": settings.ssl_cafile,
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
        }
        options |= {name: str(path) for name, path in files.items() if path is not None}
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return options


class KafkaConnection:
    """Makes clients; knows the topics' prefix."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self._security = security_options(settings)
        self._cause: Diagnosis | None = None
        """Why the last client could not be made."""
        self._diagnosed_at = 0.0

    def full_name(self, topic: str) -> str:
        """A page's name as Kafka knows it."""
        return self.settings.topic_prefix + topic

    def place(self, full_topic: str, partition: int) -> Place:
        """A partition as the rooms know it."""
        return Place(full_topic.removeprefix(self.settings.topic_prefix), partition)

    def partition(self, place: Place) -> TopicPartition:
        """The inverse of `place`."""
        return TopicPartition(self.full_name(place.topic), place.partition)

    def producer(self, client_id: str) -> KafkaProducer:
        """Connects; blocks up to the bootstrap timeout, and raises Unavailable."""
        ack_ms = int(self.settings.ack_timeout_s * 1000)
        return self._make(
            KafkaProducer,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            # One event may take what a topic takes; a batch on the wire is bounded by the same figure.
            max_request_size=self.settings.max_event_bytes + RECORD_OVERHEAD_BYTES,
            # A request must be given up before its batch is, or the batch's fate stays unknown to the client.
            request_timeout_ms=max(1, ack_ms * 6 // 10),
            delivery_timeout_ms=ack_ms,
            linger_ms=LINGER_MS,
            max_block_ms=max(1, min(ack_ms, BOOTSTRAP_TIMEOUT_MS)),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def consumer(self, client_id: str, **options: Any) -> KafkaConsumer:
        """Connects; blocks up to the bootstrap timeout, and raises Unavailable."""
        return self._make(
            KafkaConsumer,
            client_id=client_id,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=2 * (self.settings.max_event_bytes + RECORD_OVERHEAD_BYTES),
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            metrics_enabled=False,
            **options,
        )

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """Connects, and closes afterwards. Raises Unavailable."""
        client = self._make(KafkaAdminClient, client_id="thumbloop-admin")
        try:
            yield client
        finally:
            client.close()

    def unavailable(self, doing: str, error: BaseException | None = None) -> Unavailable:
        """The error for a Kafka that does not answer, with words on how to mend it."""
        cause = f" ({type(error).__name__}: {error})" if error is not None else ""
        if self._cause is not None:
            return Unavailable(
                f"Kafka at {self.settings.bootstrap_servers}: {doing} failed, since {self._cause.message}",
                reason=self._cause.reason,
                retry_after=RETRY_AFTER_S,
            )
        return Unavailable(
            f"Kafka at {self.settings.bootstrap_servers} does not answer: {doing} failed{cause}. "
            "Start it, or set THUMBLOOP_BUS__BOOTSTRAP_SERVERS to where it is.",
            reason="KAFKA_UNAVAILABLE",
            retry_after=RETRY_AFTER_S,
        )

    def _make(self, kind: Any, **options: Any) -> Any:
        """A client of a kind. A constructor that gives up leaves its network thread behind, so that is closed here."""
        opened: list[KafkaNetClient] = []

        def remembered(**configs: Any) -> KafkaNetClient:
            opened.append(open_client(**{**configs, **SET_UP_WITHIN}))
            return opened[-1]

        try:
            client = kind(
                bootstrap_servers=self.settings.bootstrap_servers.split(","),
                bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
                reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
                kafka_client=remembered,
                **self._security,
                **options,
            )
            self._cause = None
            return client
        except (KafkaError, OSError) as error:
            for each in opened:
                each.close()
            self._diagnose()
            raise self.unavailable("connecting", error) from error

    def _diagnose(self) -> None:
        """Looks for the cause, not too often. A Kafka where nobody listens is simply away."""
        now = time.monotonic()
        if self._diagnosed_at and now - self._diagnosed_at < DIAGNOSIS_INTERVAL_S:
            return
        self._diagnosed_at = now
        try:
            cause = diagnose(self.settings, self._security)
        except Exception as error:  # whoever listens there may answer anything; that Kafka is away is known already
            _log.warning("kafka_not_diagnosed", error=repr(error))
            cause = None
        self._cause = None if cause is None or cause.reason == UNREACHABLE else cause
