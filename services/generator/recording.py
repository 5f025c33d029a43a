"""Joins the rollouts' queue on disk and what empties it, by settings: the broker's word is enough, or it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from services.generator.learner import GrpcStoredRollouts
from services.generator.rollout_confirmer import RolloutConfirmer
from services.generator.rollout_publisher import RolloutPublisher
from services.generator.rollout_queue import RolloutQueue
from services.shared.bus.interface import Publisher
from services.shared.ids import utc_now
from services.shared.settings import Settings
from services.shared.telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Where rollouts go. `confirmer` is there on the embedded broker."""

    queue: RolloutQueue
    publisher: RolloutPublisher
    confirmer: RolloutConfirmer | None = None

    def start(self) -> None:
        """Begins with what an earlier run left on disk."""
        self.publisher.start()
        if self.confirmer is not None:
            self.confirmer.start()

    async def stop(self) -> None:
        """Ends sending; what is on disk stays there. Twice is once."""
        if self.confirmer is not None:
            await self.confirmer.stop()
        await self.publisher.stop()

    def close(self) -> None:
        """Lets go of the file, at the very end. Twice is once."""
        self.queue.close()


def open_recording(
    settings: Settings, folder: Path, *, publisher: Publisher, learner: grpc.Channel, metrics: Metrics
) -> Recording:
    """Opens the queue in the replica's own folder. `learner` is a blocking channel; it stays the caller's."""
    room = settings.generator
    queue = RolloutQueue(folder / "rollouts.db")
    sender = RolloutPublisher(
        publisher=publisher,
        queue=queue,
        ack_timeout_s=room.rollout_ack_timeout_s,
        max_queued=room.rollout_queue_max,
        metrics=metrics,
        clock=utc_now,
        keeps=settings.bus.embedded,
    )
    if not settings.bus.embedded:
        queue.send_all_again()  # what an embedded broker had, this one may lack
        return Recording(queue=queue, publisher=sender)
    confirmer = RolloutConfirmer(
        queue=queue,
        wake=sender.wake,
        stored=GrpcStoredRollouts(learner),
        metrics=metrics,
        clock=utc_now,
        interval_s=room.confirm_interval_s,
        resend_after_s=room.resend_after_s,
        unscored_after_s=room.unscored_after_s,
        most_kept=room.rollout_queue_max,
    )
    return Recording(queue=queue, publisher=sender, confirmer=confirmer)
