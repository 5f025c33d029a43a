"""How many replicas must have a write before it is acknowledged: all but one, so that one may be away."""

from __future__ import annotations

import pytest

from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_topics import _options
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.settings.model import BusSettings


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_a_topic_keeps_all_but_one_replica_in_sync(replicas: int, in_sync: str) -> None:
    connection = KafkaConnection(BusSettings(replication_factor=replicas))
    options = _options(connection, load_topic_pages()[FEEDBACK])
    assert options["replication_factor"] == replicas
    assert options["configs"]["min.insync.replicas"] == in_sync
