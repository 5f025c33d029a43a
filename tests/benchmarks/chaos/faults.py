"""The planted faults: which process, which kills bring each to light, and which finding must name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.chaos.killer import Pace, plan_strikes
from tests.benchmarks.chaos.load import LoadSettings
from tests.benchmarks.chaos.run import ChaosRun, Outcome, RunSettings
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
KILLS = 6


def planted_run(fault: PlantedFault, *, seed: int, data_dir: Path) -> ChaosRun:
    """A short run on Apache Kafka, where no gateway sends again what the store lacks, with one fault in it."""
    settings = RunSettings(
        seed=seed,
        strikes=plan_strikes(KILLS, seed, fault.victims),
        world=WorldSettings(commands={fault.room: module_command(fault.module)}, orphan_after_s=4.0),
        load=LoadSettings(clients=3, seed=seed, patience_s=20.0),
        pace=Pace(acknowledgements=15, release_every=KILLS, stall_s=60.0),
        weather=BROKER in fault.victims,
        within_s=180.0,
        settle_s=12.0,
    )
    return ChaosRun(settings, data_dir)


def was_seen(fault: PlantedFault, outcome: Outcome) -> bool:
    """The verdict is red for the fault's own reason."""
    return bool(getattr(outcome.verdict, fault.finding))
