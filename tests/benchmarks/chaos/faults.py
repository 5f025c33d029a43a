"""The planted faults: which process, which kills bring each to light, and which finding must name it.

A control, the same run with nothing planted, must be clean: so it is the fault that turns the others red.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.chaos.blows import kills_of
from tests.benchmarks.chaos.killer import Pace
from tests.benchmarks.chaos.load import LoadSettings
from tests.benchmarks.chaos.run import ChaosRun, Outcome, RunSettings
from tests.benchmarks.chaos.strikes import plan_strikes
from tests.benchmarks.chaos.world import BROKER, WorldSettings, module_command


@dataclass(frozen=True, kw_only=True)
class PlantedFault:
    """`room` runs `module`; `victims` are killed; the verdict's list `finding` must not be empty."""

    name: str
    room: str
    victims: tuple[str, ...]
    finding: str

    @property
    def module(self) -> str:
        """What runs instead of the room's command."""
        return f"tests.benchmarks.chaos.planted.{self.name}"


PLANTED = (
    PlantedFault(name="offsets_first", room="learner", victims=("learner",), finding="lost"),
    PlantedFault(name="early_acknowledgement", room="gateway", victims=("gateway",), finding="lost"),
    PlantedFault(name="no_dedupe", room="learner", victims=("gateway", BROKER), finding="counted_twice"),
)
CONTROL = "control"
KILLS = 6
LEAST_STORED = 0.5
"""Share of what was acknowledged that must have come through: a fault loses something, a broken plant everything."""


def planted_run(fault: PlantedFault, *, seed: int, data_dir: Path) -> ChaosRun:
    """A short run with one fault in it."""
    return _short_run(fault.victims, seed=seed, data_dir=data_dir, commands={fault.room: module_command(fault.module)})


def control_run(*, seed: int, data_dir: Path) -> ChaosRun:
    """The same without a fault, every victim of the planted ones among its own."""
    victims = sorted({victim for fault in PLANTED for victim in fault.victims})
    return _short_run(victims, seed=seed, data_dir=data_dir, commands={})


def was_seen(fault: PlantedFault, outcome: Outcome) -> bool:
    """The verdict is red for the fault's own reason, after a run that went as planned."""
    return not why_unseen(fault, outcome)


def why_unseen(fault: PlantedFault, outcome: Outcome) -> str:
    """In words; empty: it was seen."""
    if outcome.stalled:
        return f"the run stalled: {outcome.stalled}"
    if (hit := sum(kills_of(outcome.blows).values())) < KILLS:
        return f"{hit} of {KILLS} kills hit"
    said = {told.statement.feedback_id for told in outcome.ledger.acknowledged}
    stored = len(said & {row.feedback_id for row in outcome.store.feedback})
    if not said or stored < LEAST_STORED * len(said):
        return f"{stored} of the {len(said)} acknowledged came through: the plant is broken, or there was no load"
    return "" if getattr(outcome.verdict, fault.finding) else f"the verdict names nothing {fault.finding}"


def _short_run(
    victims: Sequence[str], *, seed: int, data_dir: Path, commands: Mapping[str, tuple[str, ...]]
) -> ChaosRun:
    """On Apache Kafka, where no gateway sends again what the store lacks."""
    settings = RunSettings(
        seed=seed,
        strikes=plan_strikes(KILLS, seed, victims),
        world=WorldSettings(commands=commands, orphan_after_s=4.0),
        load=LoadSettings(clients=3, seed=seed, patience_s=20.0),
        pace=Pace(acknowledgements=15, release_every=KILLS, stall_s=60.0),
        weather=BROKER in victims,
        within_s=180.0,
        settle_s=12.0,
    )
    return ChaosRun(settings, data_dir)
