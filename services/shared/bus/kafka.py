"""The bus on Kafka (Apache Kafka, or a broker that speaks its protocol), through kafka-python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from services.shared.bus.interface import Place
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_publisher import KafkaPublisher
from services.shared.bus.kafka_readers import KafkaGroupOffsets, KafkaGroupReader, KafkaLogReader
from services.shared.bus.kafka_topics import delete_records, ensure_topics
from services.shared.contracts.topics import TopicPage
from services.shared.settings.model import BusSettings

CLOSE_TIMEOUT_S = 10.0


class _Closable(Protocol):
    def close(self) -> None: ...


class KafkaBus:
    """Opens publishers and readers; Kafka need not be there yet for any of them."""

    def __init__(self, settings: BusSettings) -> None:
        self._connection = KafkaConnection(settings)
        self._publishers: list[KafkaPublisher] = []
        self._readers: list[_Closable] = []

    def ensure_topics(self, pages: Iterable[TopicPage]) -> None:
        """See `Bus`."""
        ensure_topics(self._connection, pages)

    def publisher(self, client_id: str) -> KafkaPublisher:
        """See `Bus`."""
        publisher = KafkaPublisher(self._connection, client_id)
        self._publishers.append(publisher)
        return publisher

    def log_reader(self, client_id: str) -> KafkaLogReader:
        """See `Bus`."""
        reader = KafkaLogReader(self._connection, client_id)
        self._readers.append(reader)
        return reader

    def group_reader(self, *, group: str, member_id: str, topic: str) -> KafkaGroupReader:
        """See `Bus`."""
        reader = KafkaGroupReader(self._connection, group=group, member_id=member_id, topic=topic)
        self._readers.append(reader)
        return reader

    def group_offsets(self, group: str) -> KafkaGroupOffsets:
        """See `Bus`."""
        offsets = KafkaGroupOffsets(self._connection, group)
        self._readers.append(offsets)
        return offsets

    def delete_records(self, before: Mapping[Place, int]) -> None:
        """See `Bus`."""
        delete_records(self._connection, before)

    def close(self) -> None:
        """See `Bus`."""
        for publisher in self._publishers:
            publisher.close(CLOSE_TIMEOUT_S)
        for reader in self._readers:
            reader.close()
