"""Embedded broker: keeps every rollout on disk until the learner's store has it and its score, and sends it again.

That broker may lose the tail of what it acknowledged when it is killed, whether it is a rollout or a score. A rollout
that the store lacks is sent again after `resend_after_s`; one whose score it lacks, while younger ones have theirs,
after `unscored_after_s` (`reward` then scores it again); and after twice as long each further time. Feedback on it thus
finds what it is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.generator.rollout_queue import KeptRollout, RolloutQueue
from services.shared.contracts.rollouts import tenant_of
from services.shared.domain.errors import ThumbloopError
from services.shared.domain.rollout import RolloutProgress
from services.shared.releases.backoff import Backoff
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH: Final = 500
LAST_RESEND_S: Final = 600.0
MOST_RESCORED: Final = 3
"""A rollout that was sent so often for its score has none: `reward` has put it aside (its dead letters say why)."""
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
        interval_s: float,
        resend_after_s: float,
        unscored_after_s: float,
        most_kept: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wake` tells what sends that something waits. Past `most_kept` the oldest are let go: the log has them."""
        self._queue = queue
        self._wake = wake
        self._stored = stored
        self._metrics = metrics
        self._interval_s = interval_s
        self._most_kept = most_kept
        self._missing = _Resends(resend_after_s, monotonic)
        self._unscored = _Resends(unscored_after_s, monotonic)
        self._asked_up_to = 0
        self._youngest_settled = ""
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
        await self._let_go_beyond_bound()
        page = await asyncio.to_thread(self._queue.kept, BATCH, after=self._asked_up_to)
        self._asked_up_to = page[-1].position if len(page) == BATCH else 0
        found = await asyncio.to_thread(self._ask, page)
        settled = found[RolloutProgress.SETTLED]
        self._youngest_settled = max([self._youngest_settled, *settled])
        # Ids are in the order of time. What is younger than all that is scored waits for `reward`, which may be away.
        passed_over = [name for name in found[RolloutProgress.UNSCORED] if name < self._youngest_settled]
        hopeless = self._put_aside(passed_over)
        await asyncio.to_thread(self._queue.remove, settled + hopeless)
        self._forget(settled + hopeless)
        await self._send_again(self._missing.due(found[RolloutProgress.MISSING]), lacks="rollout")
        await self._send_again(self._unscored.due(set(passed_over).difference(hopeless)), lacks="score")
        self._metrics.set("thumbloop_generator_kept_rollouts", await asyncio.to_thread(self._queue.count_kept))

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

    async def _let_go_beyond_bound(self) -> None:
        if names := await asyncio.to_thread(self._queue.remove_kept_beyond, self._most_kept):
            _log.warning("kept_rollouts_let_go", rollouts=len(names), most_kept=self._most_kept)
            self._forget(names)

    def _forget(self, names: Sequence[str]) -> None:
        self._missing.forget(names)
        self._unscored.forget(names)

    def _ask(self, page: Sequence[KeptRollout]) -> dict[RolloutProgress, list[str]]:
        by_tenant: dict[str, list[str]] = {}
        for kept in page:
            by_tenant.setdefault(tenant_of(kept.event), []).append(kept.rollout_id)
        found: dict[RolloutProgress, list[str]] = {progress: [] for progress in RolloutProgress}
        for tenant, names in by_tenant.items():
            for name, progress in zip(names, self._stored.find(tenant=tenant, rollout_ids=names), strict=True):
                found[progress].append(name)
        return found

    def _put_aside(self, unscored: Sequence[str]) -> list[str]:
        """Those of them that no further attempt will bring a score; told."""
        names = [name for name in unscored if self._unscored.sent(name) >= MOST_RESCORED]
        for name in names:
            _log.warning("rollout_never_scored", rollout_id=name, sent_again=MOST_RESCORED)
        return names

    async def _send_again(self, names: Sequence[str], *, lacks: str) -> None:
        if not names:
            return
        await asyncio.to_thread(self._queue.send_again, names)
        self._wake()
        self._metrics.increment("thumbloop_generator_rollouts_resent_total", len(names), lacks=lacks)
        _log.warning("rollouts_sent_again", rollouts=len(names), the_store_lacks=lacks)


@dataclass(kw_only=True)
class _Resend:
    backoff: Backoff
    sent: int = 0


class _Resends:
    """When each is to be sent again: `first_s` after it was seen first, and after twice as long each further time."""

    def __init__(self, first_s: float, monotonic: Callable[[], float]) -> None:
        self._first_s = first_s
        self._monotonic = monotonic
        self._known: dict[str, _Resend] = {}

    def due(self, names: Iterable[str]) -> list[str]:
        """Those of them whose time has come; they count as sent."""
        return [name for name in names if self._is_due(name)]

    def sent(self, name: str) -> int:
        """How often it was due, once the time after the last of them has passed as well; 0: not yet."""
        known = self._known.get(name)
        return 0 if known is None or known.backoff.remaining_s() > 0 else known.sent

    def forget(self, names: Iterable[str]) -> None:
        """They need no more attempts."""
        for name in names:
            self._known.pop(name, None)

    def _is_due(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            backoff = Backoff(first_s=self._first_s, max_s=LAST_RESEND_S, monotonic=self._monotonic)
            backoff.failed()
            self._known[name] = _Resend(backoff=backoff)
            return False
        if known.backoff.remaining_s() > 0:
            return False
        known.backoff.failed()
        known.sent += 1
        return True
