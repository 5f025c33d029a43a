"""Where the trainer stands, for whoever asks: written by its thread alone, read by all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from services.shared.telemetry.metrics import Metrics


class Phase(StrEnum):
    """What it is doing."""

    STARTING = "starting"
    WAITING = "waiting_for_experience"
    PAUSED = "paused"
    RESTORING = "restoring"
    TRAINING_REWARD_MODEL = "training_reward_model"
    RESCORING = "rescoring"
    UPDATING_POLICY = "updating_policy"
    MEASURING = "measuring_candidate"
    GATING = "gating"
    STAGING = "staging"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class TrainerStatus:
    """A moment's view."""

    phase: Phase = Phase.STARTING
    waiting_reason: str = ""
    """Why PPO waits; empty: it does not."""
    reward_auroc: float | None = None
    reward_auroc_low95: float | None = None
    policy_version: str = ""
    """Version that the learner holds."""
    reward_model_version: str = ""


class StatusBoard:
    """Keeps the status, and how many seconds were spent in each phase since `take_seconds`."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._status = TrainerStatus()
        self._seconds: dict[Phase, float] = {}
        self._since = self._entered = clock()
        self._lock = threading.Lock()

    @property
    def status(self) -> TrainerStatus:
        """The present status."""
        with self._lock:
            return self._status

    def tell(
        self,
        *,
        waiting_reason: str | None = None,
        policy_version: str | None = None,
        reward_model_version: str | None = None,
        tested: tuple[float, float] | None = None,
    ) -> None:
        """Changes what is named."""
        with self._lock:
            status = self._status
            self._status = replace(
                status,
                waiting_reason=status.waiting_reason if waiting_reason is None else waiting_reason,
                policy_version=status.policy_version if policy_version is None else policy_version,
                reward_model_version=(
                    status.reward_model_version if reward_model_version is None else reward_model_version
                ),
                reward_auroc=status.reward_auroc if tested is None else tested[0],
                reward_auroc_low95=status.reward_auroc_low95 if tested is None else tested[1],
            )

    def enter(self, phase: Phase) -> None:
        """Begins a phase; the one before ends. The phase that it is in already goes on."""
        with self._lock:
            before, now = self._status.phase, self._clock()
            self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
            self._since = now
            lasted = now - self._entered
            if phase is not before:
                self._entered = now
            self._status = replace(self._status, phase=phase)
        if phase is not before:
            self._metrics.observe("thumbloop_trainer_phase_seconds", lasted, phase=str(before))
        self._metrics.set_only("thumbloop_trainer_phase", 1, phase=str(phase))

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """A phase for as long as the block runs; then the one before goes on."""
        before = self.status.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def take_seconds(self) -> dict[Phase, float]:
        """Seconds spent in each phase since the last call."""
        self.enter(self.status.phase)
        with self._lock:
            taken, self._seconds = self._seconds, {}
            return taken
