"""Embedded broker: keeps every rollout on disk until the learner's store has it and a score of it, and sends it again.

That broker may lose the tail of what it acknowledged when it is killed, whether it is a rollout or a score. A rollout
that the store lacks is sent again after `resend_after_s`. One that lacks its score is sent again (and scored again)
when one that was sent later to the same partition has its own, and `unscored_after_s` have passed: `reward` reads and
writes in the order of a partition, so that its score is lost. Each further time takes twice as long. After `MOST_SENT`
times a copy is let go: whoever reads the log has put the rollout aside, or has not come to it yet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from services.generator.rollout_queue import KeptRollout, RolloutQueue
from services.shared.bus.partitioning import partition_of
from services.shared.contracts.topics import ROLLOUTS, load_topic_pages
from services.shared.domain.errors import ThumbloopError
from services.shared.domain.events import Clock
from services.shared.domain.rollout import RolloutProgress
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH: Final = 500
MOST_SENT: Final = 6
LAST_RESEND_S: Final = 600.0
_log = get_logger()


class StoredRollouts(Protocol):
    """Asks the learner; blocks."""

    def find(self, *, tenant: str, rollout_ids: Sequence[str]) -> list[RolloutProgress]:
        """One answer for each id (at most 1,000, of one tenant). Raises Unavailable, DeadlineExceeded."""


class RolloutConfirmer:
    """Belongs to one event loop."""

    def __init__(
        self,
        *,
        queue: RolloutQueue,
        wake: Callable[[], None],
        stored: StoredRollouts,
        metrics: Metrics,
        clock: Clock,
        interval_s: float,
        resend_after_s: float,
        unscored_after_s: float,
        most_kept: int,
    ) -> None:
        """`wake` tells what sends that something waits. Past `most_kept` the oldest copies are let go."""
        self._queue = queue
        self._wake = wake
        self._stored = stored
        self._metrics = metrics
        self._clock = clock
        self._interval_s = interval_s
        self._first_s = {RolloutProgress.MISSING: resend_after_s, RolloutProgress.UNSCORED: unscored_after_s}
        self._most_kept = most_kept
        self._partitions = load_topic_pages()[ROLLOUTS].partitions
        self._settled_up_to: dict[int, float] = defaultdict(float)
        """By partition: when the last of those that are settled was sent."""
        self._asked_up_to = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins with what an earlier run kept."""
        self._task = asyncio.create_task(self._run(), name="rollout confirmer")

    async def stop(self) -> None:
        """What is kept stays on disk. Twice is once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def round(self) -> None:
        """Asks about the next of the kept, lets go of what is settled, has sent again what is due. Raises
        ThumbloopError while the learner is away.
        """
        await self._note_kept()
        page = await asyncio.to_thread(self._queue.kept, BATCH, after=self._asked_up_to)
        self._asked_up_to = page[-1].position if len(page) == BATCH else 0
        found = await asyncio.to_thread(self._ask, page)
        for one, progress in found:
            if progress is RolloutProgress.SETTLED:
                partition = self._partition_of(one)
                self._settled_up_to[partition] = max(self._settled_up_to[partition], one.sent_time)
        due = [(one, progress) for one, progress in found if self._is_due(one, progress)]
        in_vain = [one for one, _ in due if one.sent_count >= MOST_SENT]
        if in_vain:
            _log.warning("rollouts_sent_in_vain", rollout_ids=[one.rollout_id for one in in_vain], times=MOST_SENT)
        settled = [one for one, progress in found if progress is RolloutProgress.SETTLED]
        await asyncio.to_thread(self._queue.remove, [one.rollout_id for one in settled + in_vain])
        await self._send_again([(one, progress) for one, progress in due if one.sent_count < MOST_SENT])

    async def _run(self) -> None:
        """No failure ends it."""
        while True:
            try:
                await self.round()
            except ThumbloopError as error:
                _log.warning("rollouts_not_confirmed", reason=error.reason, cause=error.message)
            except Exception as error:  # what is kept here would otherwise be kept for nothing
                _log.error("rollout_confirm_failed", exc_info=error)
            await asyncio.sleep(self._interval_s)

    async def _note_kept(self) -> None:
        if let_go := await asyncio.to_thread(self._queue.remove_kept_beyond, self._most_kept):
            _log.warning("kept_rollouts_let_go", rollouts=let_go, most_kept=self._most_kept)
        self._metrics.set("thumbloop_generator_kept_rollouts", await asyncio.to_thread(self._queue.count_kept))

    def _ask(self, page: Sequence[KeptRollout]) -> list[tuple[KeptRollout, RolloutProgress]]:
        by_tenant: dict[str, list[KeptRollout]] = defaultdict(list)
        for one in page:
            by_tenant[one.tenant].append(one)
        found: list[tuple[KeptRollout, RolloutProgress]] = []
        for tenant, kept in by_tenant.items():
            progress = self._stored.find(tenant=tenant, rollout_ids=[one.rollout_id for one in kept])
            found += zip(kept, progress, strict=True)
        return found

    def _is_due(self, one: KeptRollout, progress: RolloutProgress) -> bool:
        if progress is RolloutProgress.SETTLED:
            return False
        if progress is RolloutProgress.UNSCORED and one.sent_time >= self._settled_up_to[self._partition_of(one)]:
            return False
        wait_s = min(self._first_s[progress] * 2 ** (one.sent_count - 1), LAST_RESEND_S)
        return not 0 <= self._clock().timestamp() - one.sent_time < wait_s

    def _partition_of(self, one: KeptRollout) -> int:
        return partition_of(one.rollout_id, self._partitions)

    async def _send_again(self, due: Sequence[tuple[KeptRollout, RolloutProgress]]) -> None:
        if not due or self._queue.count >= BATCH:  # what waits does not go: more of it would only fill the disk
            return
        await asyncio.to_thread(self._queue.send_again, [one.rollout_id for one, _ in due])
        self._wake()
        for progress, lacks in ((RolloutProgress.MISSING, "rollout"), (RolloutProgress.UNSCORED, "score")):
            if number := sum(one is progress for _, one in due):
                self._metrics.increment("thumbloop_generator_rollouts_resent_total", number, lacks=lacks)
                _log.warning("rollouts_sent_again", rollouts=number, the_store_lacks=lacks)
