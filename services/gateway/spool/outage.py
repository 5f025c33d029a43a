"""Which partitions of the log are known to be away, so that not every request waits for that to show again."""

from __future__ import annotations

from collections.abc import Callable

from services.gateway.spool.sending import Sent
from services.shared.bus.partitioning import partition_of
from services.shared.domain.errors import Busy
from services.shared.telemetry.log import get_logger

HOLD_S = 30.0
"""So long after its last failure a partition is held to be away. While something of it lies in the spool, whoever
empties that tries more often; where nothing does, the next request finds out.
"""
_log = get_logger()


class Outage:
    """Belongs to one event loop. A partition's begins with a failed write; ends with a successful one.

    A topic may have other partitions by now than its page says. What is held for one is then a mixture, in which a
    request may wait that need not; nothing is held for ever.
    """

    def __init__(self, *, partitions: int, monotonic: Callable[[], float]) -> None:
        self._partitions = partitions
        self._monotonic = monotonic
        self._away: dict[int, float] = {}
        """By partition: when its last write failed."""

    def covers(self, rollout_id: str) -> bool:
        """Whether a rollout's partition is held to be away."""
        if not self._away:
            return False
        failed = self._away.get(self._partition_of(rollout_id))
        return failed is not None and self._monotonic() < failed + HOLD_S

    def begin(self, rollout_id: str, cause: BaseException) -> None:
        """A write failed."""
        partition = self._partition_of(rollout_id)
        if partition not in self._away:
            _log.warning("log_away", partition=partition, cause=repr(cause), feedback="goes to the spool")
        self._away[partition] = self._monotonic()

    def end(self, rollout_id: str) -> None:
        """A write succeeded. Twice is once."""
        if self._away:
            self._end(self._partition_of(rollout_id))

    def note(self, sent: Sent) -> None:
        """Learns from a batch: where something was acknowledged, what failed beside it is no outage."""
        if not self._away and not sent.failed:
            return
        there = {self._partition_of(stored.item.key.rollout_id) for stored in sent.acknowledged}
        for partition in there:
            self._end(partition)
        for stored, failure in sent.failed:
            rollout_id = stored.item.key.rollout_id
            if not isinstance(failure, Busy) and self._partition_of(rollout_id) not in there:
                self.begin(rollout_id, failure)

    def _end(self, partition: int) -> None:
        if self._away.pop(partition, None) is not None:
            _log.info("log_back", partition=partition)

    def _partition_of(self, rollout_id: str) -> int:
        return partition_of(rollout_id, self._partitions)
