"""The brokers of the embedded run: each starts, keeps its data over restarts, and is gone when it was stopped."""

from __future__ import annotations

from services.embedded.brokers import Broker
from services.embedded.ports import is_free
from services.shared.bus.interface import OutgoingEvent
from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import SPREAD
from tests.support.brokers import ACK_TIMEOUT_S, TOLD_WITHIN_S, bus_with_topics
from tests.support.reading import assign_all, read_count


def test_a_broker_keeps_its_data_over_restarts_and_leaves_nothing_behind(own_broker: Broker) -> None:
    settings = BusSettings(bootstrap_servers=own_broker.bootstrap_servers, ack_timeout_s=ACK_TIMEOUT_S)
    bus = bus_with_topics(settings, [SPREAD])
    publisher = bus.publisher("writer")
    for number in range(20):
        publisher.send(OutgoingEvent(topic=SPREAD.name, key=str(number), value=b"kept")).result(timeout=TOLD_WITHIN_S)
    first = bus.log_reader("first")
    cluster_id = first.cluster_id()
    bus.close()

    own_broker.stop()
    own_broker.stop()
    assert not own_broker.is_running()
    assert is_free(own_broker.port)
    own_broker.start(60)
    own_broker.start(60)

    again = bus_with_topics(settings, [SPREAD])
    reader = again.log_reader("second")
    assign_all(reader, SPREAD.name)
    assert {record.key for record in read_count(reader, 20)} == {str(number) for number in range(20)}
    assert reader.cluster_id() == cluster_id
    again.close()

    own_broker.kill()
    assert not own_broker.is_running()
    assert is_free(own_broker.port)
    assert own_broker.peak_memory_mib() > 1


def test_a_killed_broker_serves_again_what_it_still_has(own_broker: Broker) -> None:
    """Apache Kafka loses nothing that it acknowledged; the embedded broker may lose its tail, and only that."""
    settings = BusSettings(bootstrap_servers=own_broker.bootstrap_servers, ack_timeout_s=ACK_TIMEOUT_S)
    bus = bus_with_topics(settings, [SPREAD])
    publisher = bus.publisher("writer")
    events = [OutgoingEvent(topic=SPREAD.name, key="one", value=str(number).encode()) for number in range(200)]
    acknowledged = [future.result(timeout=TOLD_WITHIN_S) for future in [publisher.send(event) for event in events]]
    own_broker.kill()
    own_broker.start(60)
    bus.close()

    again = bus_with_topics(settings, [SPREAD])
    reader = again.log_reader("reader")
    kept = sum(reader.end_offsets(reader.places(SPREAD.name)).values())
    if not own_broker.embedded:
        assert kept == len(acknowledged)
    if kept:
        assign_all(reader, SPREAD.name)
        values = [record.value for record in read_count(reader, kept)]
        assert values == [event.value for event in events][:kept]
    again.close()
