"""kafka-python's coordinator of a group has the names that a member is watched by."""

from __future__ import annotations

from kafka import KafkaConsumer
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.structs import MemberState


def test_the_coordinator_has_the_names_that_joins_are_seen_by() -> None:
    for name in ("rebalance_in_progress", "need_rejoin", "request_rejoin", "stable", "coordinator_unknown"):
        assert callable(getattr(ConsumerCoordinator, name)), name
    assert MemberState.REBALANCING != MemberState.STABLE
    assert "_is_leader" in ConsumerCoordinator.__init__.__code__.co_names
    assert {"_client", "_coordinator"} <= set(KafkaConsumer.__init__.__code__.co_names)
