"""What kafka-python (3.0) leaves undone of a group's joins, seen between two polls of a member."""

from __future__ import annotations

from typing import Any


class KafkaJoining:
    """Of one consumer that subscribes. It mends three things:

    A join that new partitions made necessary is forgotten when the poll that began it ends first: the partitions count
    as assigned from then on, nobody waits for the assignment, and no heartbeats are sent (in Java: KAFKA-9815).
    A join that ends between two polls is thrown away, and begun anew: polls have to wait for it.
    A static member that comes back within its session is not told by Apache Kafka that it leads its group (KIP-814), so
    that nobody there looks for new partitions: it asks again, once.
    """

    def __init__(self, consumer: Any) -> None:
        self._coordinator = consumer._coordinator
        self._knows_who_leads = False

    def has_coordinator(self) -> bool:
        """It is known, and connected as far as one knows."""
        return not self._coordinator.coordinator_unknown()

    def is_under_way(self) -> bool:
        """A join has begun and not ended."""
        return bool(self._coordinator.rebalance_in_progress())

    def is_due(self) -> bool:
        """The next poll begins a join, or goes on with one: it is to have time."""
        coordinator = self._coordinator
        if coordinator.rebalance_in_progress() and not coordinator.need_rejoin():
            coordinator.request_rejoin()
        elif coordinator.stable() and not coordinator.need_rejoin() and not self._knows_who_leads:
            self._knows_who_leads = True
            if not coordinator._is_leader:
                coordinator.request_rejoin()
        return bool(coordinator.need_rejoin())
