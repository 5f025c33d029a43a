"""Embedded broker: keeps every rollout on disk until the learner's store has it and a score of it, and sends it again.

That broker may lose the tail of what it acknowledged when it is killed, whether it is a rollout or a score. A rollout
that the store lacks is sent again after `resend_after_s` in which the learner answered. One that lacks its score is
sent again (and scored again) when one that was first sent later to the same partition has its own, and at least
`unscored_after_s` have passed: `reward` reads and writes in the order of a partition, so that its score is lost. Each
further time takes twice as long. After `MOST_SENT` times a copy is let go: whoever reads the log has put the rollout
aside, or has not come to it yet.
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
from services.shared.telemetry.last_told import LastTold
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH: Final = 500
MOST_SENT: Final = 4
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
        self._resend_after_s = resend_after_s
        self._unscored_after_s = unscored_after_s
        self._most_kept = most_kept
        self._partitions = load_topic_pages()[ROLLOUTS].partitions
        self._scored_up_to: dict[int, int] = defaultdict(int)
        """By partition: the greatest `sent_order` of those that were sent once, and are settled."""
        self._asked_up_to = 0
        self._answers_since: float | None = None
        """None: the learner is away."""
        self._told = LastTold()
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
        found = await self._ask_learner(page)
        self._asked_up_to = page[-1].position if len(page) == BATCH else 0
        settled = [one for one, progress in found if progress is RolloutProgress.SETTLED]
        for one in settled:
            self._note_settled(one)
        due = [(one, progress) for one, progress in found if self._is_due(one, progress)]
        in_vain = [one for one, _ in due if one.sent_count >= MOST_SENT]
        if in_vain:
            _log.warning("rollouts_sent_in_vain", rollout_ids=[one.rollout_id for one in in_vain], times=MOST_SENT)
        await asyncio.to_thread(self._queue.remove, [one.rollout_id for one in settled + in_vain])
        await self._send_again([(one, progress) for one, progress in due if one.sent_count < MOST_SENT])

    async def _run(self) -> None:
        """No failure ends it."""
        while True:
            try:
                await self.round()
                self._told.succeeded()
            except ThumbloopError as error:
                if self._told.is_news(error.reason):
                    _log.warning("rollouts_not_confirmed", reason=error.reason, cause=error.message)
            except Exception as error:  # what is kept here would otherwise be kept for nothing
                _log.error("rollout_confirm_failed", exc_info=error)
            await asyncio.sleep(self._interval_s)

    async def _note_kept(self) -> None:
        if let_go := await asyncio.to_thread(self._queue.remove_kept_beyond, self._most_kept):
            _log.warning("kept_rollouts_let_go", rollouts=let_go, most_kept=self._most_kept)
        self._metrics.set("thumbloop_generator_kept_rollouts", await asyncio.to_thread(self._queue.count_kept))

    async def _ask_learner(self, page: Sequence[KeptRollout]) -> list[tuple[KeptRollout, RolloutProgress]]:
        try:
            found = await asyncio.to_thread(self._ask, page)
        except ThumbloopError:
            self._answers_since = None
            raise
        if page and self._answers_since is None:
            self._answers_since = self._now()
        return found

    def _ask(self, page: Sequence[KeptRollout]) -> list[tuple[KeptRollout, RolloutProgress]]:
        by_tenant: dict[str, list[KeptRollout]] = defaultdict(list)
        for one in page:
            by_tenant[one.tenant].append(one)
        found: list[tuple[KeptRollout, RolloutProgress]] = []
        for tenant, kept in by_tenant.items():
            progress = self._stored.find(tenant=tenant, rollout_ids=[one.rollout_id for one in kept])
            found += zip(kept, progress, strict=True)
        return found

    def _note_settled(self, one: KeptRollout) -> None:
        """What was sent more than once may have been settled by an earlier copy: it shows nothing."""
        if one.sent_count == 1:
            partition = self._partition_of(one)
            self._scored_up_to[partition] = max(self._scored_up_to[partition], one.sent_order)

    def _is_due(self, one: KeptRollout, progress: RolloutProgress) -> bool:
        """Whether it is to be sent again now, or let go. A clock that was set back holds nothing up."""
        if progress is RolloutProgress.MISSING:
            first_s, since = self._resend_after_s, max(one.sent_time, self._answers_since or 0.0)
        elif progress is RolloutProgress.UNSCORED and one.sent_order < self._scored_up_to[self._partition_of(one)]:
            first_s, since = self._unscored_after_s, one.sent_time
        else:
            return False
        return not 0 <= self._now() - since < first_s * 2 ** (one.sent_count - 1)

    def _now(self) -> float:
        return self._clock().timestamp()

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
