"""The trainer's thread: turns of the cycle until it is stopped, with a breath when something is away.

Lifecycle: `start`, `drain` (the step in hand is given up at its next safe point, which an update has many of; what was
claimed is open again, but for a batch whose candidate waits for its verdict). What may pass by itself (a room or Kafka
away) is tried again, and so is an update that failed (`failed_updates`); anything else ends the thread, and with it the
process, which starts again from the live release.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.learner.forgetting.lineage import FORGOTTEN
from services.learner.trainer.cycle import Cycle
from services.learner.trainer.pacing import Pacing, Stopped
from services.learner.trainer.status import Phase, StatusBoard, TrainerStatus
from services.shared.domain.errors import Busy, FailedPrecondition, Unavailable
from services.shared.telemetry.log import get_logger

_log = get_logger()
_RETRY_S = 1.0


class Trainer:
    """Owns the thread. All methods may be called from any other."""

    def __init__(
        self,
        make_cycle: Callable[[], Cycle],
        pacing: Pacing,
        board: StatusBoard,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`make_cycle` is called in the thread: loading a model takes seconds that nobody else should wait for.

        `on_failure` is called in the thread when it ends by itself.
        """
        self._make_cycle = make_cycle
        self._on_failure = on_failure
        self._pacing = pacing
        self._board = board
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    @property
    def status(self) -> TrainerStatus:
        """Where it stands."""
        return self._board.status

    @property
    def running(self) -> bool:
        """The thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Trains from now on."""
        self._thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Stops at the next safe point. False: the step in hand took longer than `timeout_s`. Twice is once."""
        self._pacing.stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            cycle = self._make_cycle()
            while True:
                self._turn(cycle)
        except Stopped:
            _log.info("trainer_stopped")
        except BaseException as error:  # The process must end with a clear word.
            _log.error("trainer_failed", exc_info=error)
            self._on_failure(error)
        finally:
            self._board.enter(Phase.STOPPED)

    def _turn(self, cycle: Cycle) -> None:
        try:
            cycle.turn()
        except FailedPrecondition as error:
            if error.reason != FORGOTTEN:
                raise
            _log.warning("batch_given_up", reason=error.reason, message=error.message)
        except (Unavailable, Busy) as error:
            _log.warning("trainer_waits", reason=error.reason, message=error.message)
            self._board.tell(waiting_reason=f"something is away: {error.message}")
            self._board.enter(Phase.WAITING)
            self._pacing.sleep(error.retry_after or _RETRY_S)
