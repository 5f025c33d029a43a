"""How long phases lasted, as status and metrics tell it."""

from __future__ import annotations

from services.learner.trainer.status import Phase, StatusBoard
from services.shared.telemetry.metrics import Metrics


def test_a_phase_that_is_entered_again_goes_on() -> None:
    """The cycle says "waiting" at each look; the phase still lasted from the first to the last."""
    now = [0.0]
    metrics = Metrics()
    board = StatusBoard(metrics, clock=lambda: now[0])
    for _ in range(10):
        board.enter(Phase.WAITING)
        now[0] += 0.5
    with board.phase(Phase.UPDATING_POLICY):
        now[0] += 3.0
    now[0] += 2.0
    assert board.take_seconds() == {Phase.STARTING: 0.0, Phase.WAITING: 7.0, Phase.UPDATING_POLICY: 3.0}
    assert board.take_seconds() == {Phase.WAITING: 0.0}
    board.enter(Phase.PAUSED)
    lasted = {phase: observed(metrics, phase) for phase in (Phase.STARTING, Phase.WAITING, Phase.UPDATING_POLICY)}
    assert lasted == {Phase.STARTING: (1, 0.0), Phase.WAITING: (2, 7.0), Phase.UPDATING_POLICY: (1, 3.0)}


def observed(metrics: Metrics, phase: Phase) -> tuple[float | None, float | None]:
    """How often a phase ended, and the seconds of all its times."""
    name = "thumbloop_trainer_phase_seconds"
    return metrics.value(f"{name}_count", phase=str(phase)), metrics.value(f"{name}_sum", phase=str(phase))
