"""A bus keeps readers until they are closed, and no longer: rooms open one after another while Kafka is away."""

from __future__ import annotations

from services.shared.bus.kafka import KafkaBus
from services.shared.settings.model import BusSettings


def test_closed_readers_are_let_go() -> None:
    bus = KafkaBus(BusSettings(bootstrap_servers="127.0.0.1:1"))  # nobody connects before the first use
    readers = [
        bus.log_reader("reader"),
        bus.group_reader(group="group", member_id="member", topic="rollouts"),
        bus.group_offsets("group"),
    ]
    assert len(bus._readers) == 3
    for _ in range(2):
        readers[0].close()
    assert len(bus._readers) == 2
    bus.close()
    assert not bus._readers
