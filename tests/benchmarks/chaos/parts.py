"""The parts of the proof: what each runs, and what it brings.

*main* on Apache Kafka with network faults on every link; *planted*, three faults that must each turn the verdict red,
and a control that must not; *embedded*, the broker that may lose its tail, killed again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.benchmarks.chaos.faults import CONTROL, PLANTED, control_run, planted_run, why_unseen
from tests.benchmarks.chaos.killer import Pace
from tests.benchmarks.chaos.load import LoadSettings
from tests.benchmarks.chaos.report import Figures, Form, embedded_figures, main_figures
from tests.benchmarks.chaos.run import ChaosRun, Outcome, RunSettings
from tests.benchmarks.chaos.strikes import plan_broker_strikes, plan_strikes
from tests.benchmarks.chaos.world import WorldSettings

PARTS = ("main", "planted", "embedded")


@dataclass(frozen=True, kw_only=True)
class Options:
    """`within_s`: bound of the main part's load and kills."""

    form: Form
    seed: int
    clients: int
    within_s: float


@dataclass(frozen=True, kw_only=True)
class Brought:
    """`orphans`: each beside the kill that explains it."""

    figures: Figures
    orphans: list[str] = field(default_factory=list)


class Watch(Protocol):
    """Runs something to its end before people's eyes."""

    def __call__(self, name: str, run: ChaosRun, *, wrong: Callable[[Outcome], str]) -> Outcome:
        """`wrong` says what is not as it should be; empty: nothing."""


def run_part(part: str, options: Options, folder: Path, watch: Watch) -> Brought:
    """`folder` gets one below it for each run. Raises Misconfigured, Unavailable where a world does not even start."""
    match part:
        case "main":
            outcome = watch(part, _main_run(options, folder / part), wrong=_violations)
            return Brought(figures=main_figures(outcome, options.seed), orphans=outcome.verdict.orphans)
        case "embedded":
            outcome = watch(part, _embedded_run(options, folder / part), wrong=_violations)
            return Brought(figures=embedded_figures(outcome), orphans=outcome.verdict.orphans)
        case _:
            return Brought(figures=_planted(options, folder, watch))


def _main_run(options: Options, data_dir: Path) -> ChaosRun:
    full, form = options.form.is_full, options.form
    settings = RunSettings(
        seed=options.seed,
        strikes=plan_strikes(form.kills, options.seed),
        world=WorldSettings(model=form.model, grpc_proxies=True),
        load=LoadSettings(clients=options.clients, seed=options.seed),
        pace=Pace(stall_s=180.0),
        releases=20 if full else 1,
        trained=1000 if full else 16,
        within_s=options.within_s,
        settle_s=180.0,
    )
    return ChaosRun(settings, data_dir)


def _embedded_run(options: Options, data_dir: Path) -> ChaosRun:
    full, form = options.form.is_full, options.form
    settings = RunSettings(
        seed=options.seed,
        strikes=plan_broker_strikes(form.embedded_kills, form.embedded_of_each_room, options.seed),
        world=WorldSettings(broker="embedded", model=form.model),
        load=LoadSettings(clients=options.clients, seed=options.seed),
        pace=Pace(stall_s=180.0),
        releases=5 if full else 1,
        trained=80 if full else 16,
        within_s=1200.0,
        settle_s=120.0,
    )
    return ChaosRun(settings, data_dir)


def _planted(options: Options, folder: Path, watch: Watch) -> Figures:
    """How many of the planted faults were seen, and whether nothing was seen where nothing was planted."""
    seen = 0
    for fault in PLANTED:
        unseen = partial(why_unseen, fault)
        outcome = watch(
            f"planted {fault.name}", planted_run(fault, seed=options.seed, data_dir=folder / fault.name), wrong=unseen
        )
        seen += not unseen(outcome)
    control = watch(CONTROL, control_run(seed=options.seed, data_dir=folder / CONTROL), wrong=_violations)
    return {"planted_faults_seen": seen, "planted_control_clean": int(not _violations(control))}


def _violations(outcome: Outcome) -> str:
    return f"{len(outcome.violations)} violations" if outcome.violations else ""
