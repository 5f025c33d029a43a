"""The broker goes away while ingest runs, and comes back.

Plan: ingest what is there; stop the broker (as an operator does, so that it loses nothing); wait until ingest has
noticed; start it again; publish more.
Pass: ingest has not stopped, reads on by itself, and has every id once.
"""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from services.embedded.brokers import Broker
from services.shared.contracts.topics import load_topic_pages
from services.shared.settings.model import BusSettings
from services.shared.store.database import Database
from services.shared.store.tables import rollouts
from tests.integration.learner.test_learner_ingest_broker import make_real_ingest, publish, to_event
from tests.support.brokers import ACK_TIMEOUT_S, bus_with_topics
from tests.support.facts import make_rollout
from tests.support.patience import eventually


@pytest.mark.kafka
def test_ingest_waits_out_a_broker_restart(own_broker: Broker, database: Database) -> None:
    settings = BusSettings(
        bootstrap_servers=own_broker.bootstrap_servers, embedded=own_broker.embedded, ack_timeout_s=ACK_TIMEOUT_S
    )
    bus = bus_with_topics(settings, load_topic_pages().values())
    ingest, failures = make_real_ingest(bus, database, settings)

    def stored() -> int:
        with database.read() as connection:
            return connection.scalar(select(func.count()).select_from(rollouts)) or 0

    publish(bus, [to_event(make_rollout(f"a{number}")) for number in range(20)])
    ingest.start()
    eventually(lambda: stored() == 20, within_s=30)
    own_broker.stop()
    eventually(lambda: ingest.waiting, within_s=30, what="ingest notices that Kafka is away")
    own_broker.start(60.0)
    publish(bus, [to_event(make_rollout(f"b{number}")) for number in range(20)])
    eventually(lambda: stored() == 40, within_s=60)
    ingest.stop()
    bus.close()
    assert failures == []
