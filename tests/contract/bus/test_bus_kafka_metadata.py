"""A reader that asks for a topic's partitions is answered or told in time, whatever became of the client's refresh."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.cluster import ClusterMetadata
from kafka.errors import KafkaConnectionError
from kafka.future import Future

from services.shared.bus import kafka_readers
from services.shared.bus.kafka_metadata import metadata
from services.shared.bus.kafka_readers import KafkaLogReader
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import SPREAD
from tests.support.brokers import bus_with_topics

TOPIC = SPREAD.name
PATIENCE_MS = 200


@pytest.mark.parametrize("ask", ["places", "cluster_id"])
def test_a_refresh_that_nobody_answers_is_told(
    bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    bus = bus_with_topics(bus_settings, [SPREAD])
    reader = bus.log_reader("reader")
    assert isinstance(reader, KafkaLogReader)
    question = (lambda: reader.places(TOPIC)) if ask == "places" else reader.cluster_id
    answer = question()
    answered: Future = Future()

    async def held_open(cluster: ClusterMetadata, node_id: Any = None) -> None:
        await answered

    monkeypatch.setattr(ClusterMetadata, "refresh_metadata", held_open)
    monkeypatch.setattr(kafka_readers, "CALL_TIMEOUT_MS", PATIENCE_MS)
    with pytest.raises(Unavailable):
        question()
    assert metadata(reader._consumer).need_all_topic_metadata is False

    monkeypatch.undo()
    answered.failure(KafkaConnectionError("lost"))
    assert question() == answer
    bus.close()


def test_a_topic_that_is_missing_is_told_by_its_name(bus_settings: BusSettings) -> None:
    bus = bus_with_topics(bus_settings, [SPREAD])
    reader = bus.log_reader("reader")
    with pytest.raises(Unavailable, match=f"no topic {bus_settings.topic_prefix}missing") as caught:
        reader.places("missing")
    assert caught.value.reason == "NO_TOPIC"
    assert len(reader.places(TOPIC)) == SPREAD.partitions
    bus.close()


def test_kafka_python_has_the_names_that_metadata_is_asked_by() -> None:
    """Read and set by name, none of them would be missed in Python."""
    cluster = ClusterMetadata(bootstrap_servers=["127.0.0.1:1"])
    assert cluster.need_all_topic_metadata is False
    assert cluster.metadata_refresh_in_progress is False
    assert cluster.cluster_id is None
    for name in (
        "request_update",
        "partitions_for_topic",
        "topic_id",
        "leader_for_partition",
        "leader_epoch_for_partition",
    ):
        assert callable(getattr(cluster, name))
