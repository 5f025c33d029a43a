"""The bus on Kafka (Apache Kafka, or a broker that speaks its protocol), through kafka-python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from services.shared.bus.interface import Place
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_publisher import KafkaPublisher
from services.shared.bus.kafka_readers import KafkaGroupOffsets, KafkaGroupReader, KafkaLogReader, KafkaReader
from services.shared.bus.kafka_topics import delete_records, ensure_topics
from services.shared.contracts.topics import TopicPage
from services.shared.settings.model import BusSettings

CLOSE_TIMEOUT_S = 10.0


ReaderT = TypeVar("ReaderT", bound=KafkaReader)


class KafkaBus:
    """Opens publishers and readers; Kafka need not be there yet for any of them."""

    def __init__(self, settings: BusSettings) -> None:
        self._connection = KafkaConnection(settings)
        self._publishers: list[KafkaPublisher] = []
        self._readers: set[KafkaReader] = set()

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
        return self._until_closed(KafkaLogReader(self._connection, client_id))

    def group_reader(self, *, group: str, member_id: str, topic: str) -> KafkaGroupReader:
        """See `Bus`."""
        return self._until_closed(KafkaGroupReader(self._connection, group=group, member_id=member_id, topic=topic))

    def group_offsets(self, group: str) -> KafkaGroupOffsets:
        """See `Bus`."""
        return self._until_closed(KafkaGroupOffsets(self._connection, group))

    def delete_records(self, before: Mapping[Place, int]) -> None:
        """See `Bus`."""
        delete_records(self._connection, before)

    def close(self) -> None:
        """See `Bus`."""
        for publisher in self._publishers:
            publisher.close(CLOSE_TIMEOUT_S)
        for reader in list(self._readers):
            reader.close()

    def _until_closed(self, reader: ReaderT) -> ReaderT:
        """Remembers it, to close it at the end, unless whoever asked for it has done so."""
        self._readers.add(reader)
        reader.on_close = self._readers.discard
        return reader
