"""`make test-chaos`: the full form, or a part of it. Exit code 0: the promise held, and the harness sees.

Parts: *main* on Apache Kafka with network faults; *planted*, three faults that must each turn the verdict red;
*embedded*, the same load and kills on the embedded broker. Figures go to `.bench/chaos.json` when all parts were run
and all aims are met. The data folder of a part that went wrong is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from services.shared.domain.errors import ThumbloopError
from tests.benchmarks.chaos.faults import PLANTED, planted_run, was_seen
from tests.benchmarks.chaos.killer import Pace, plan_strikes
from tests.benchmarks.chaos.load import LoadSettings
from tests.benchmarks.chaos.report import (
    Figures,
    aims,
    embedded_figures,
    main_figures,
    missed,
    print_figures,
    print_outcome,
)
from tests.benchmarks.chaos.run import ChaosRun, Outcome, RunSettings
from tests.benchmarks.chaos.world import WorldSettings
from tests.benchmarks.figures import write_figures

PARTS = ("main", "planted", "embedded")
LINE_EVERY_S = 1.0
LOG_EVERY_S = 15.0


def main() -> int:
    """Runs the parts one after the other."""
    options = _options()
    console = Console(soft_wrap=True)
    figures: Figures = {}
    began = time.monotonic()
    folder = options.data_dir / time.strftime("%Y%m%d-%H%M%S")
    watch = partial(_watched, console, keep=options.keep)
    try:
        if "main" in options.parts:
            outcome = watch("main", _main_run(options, folder / "main"), folder / "main")
            figures |= main_figures(outcome, options.seed)
        if "planted" in options.parts:
            figures["planted_faults_seen"] = _planted(console, options, folder)
        if "embedded" in options.parts:
            part = folder / "embedded"
            outcome = watch("embedded", _embedded_run(options, part), part)
            figures |= embedded_figures(outcome)
    except ThumbloopError as error:
        console.print(f"[red]{error.message}[/]\nkept: {folder}")
        return 1
    wanted = aims(options.kills, len(PLANTED))
    print_figures(console, figures, wanted)
    failures = missed(figures, wanted)
    for line in failures:
        console.print(f"[red]{line}[/]")
    if failures:
        return 1
    if set(options.parts) == set(PARTS):
        console.print(str(write_figures("chaos", figures, wanted, seconds=time.monotonic() - began)))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.benchmarks.chaos")
    parser.add_argument("--kills", type=int, default=100, help="in the main part")
    parser.add_argument("--embedded-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45.0, help="bound of the main part")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--model", choices=("tiny", "scripted"), default="tiny", help="tiny: real PPO, real engine")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="the data folder of parts that went well, too")
    parser.add_argument("--data-dir", type=Path, default=Path(".thumbloop/chaos"))
    return parser.parse_args()


def _main_run(options: argparse.Namespace, data_dir: Path) -> ChaosRun:
    full = options.kills >= 100
    settings = RunSettings(
        seed=options.seed,
        strikes=plan_strikes(options.kills, options.seed),
        world=WorldSettings(model=options.model),
        load=LoadSettings(clients=options.clients, seed=options.seed),
        pace=Pace(stall_s=180.0),
        releases=20 if full else 1,
        trained=1000 if full else 16,
        within_s=options.minutes * 60,
        settle_s=180.0,
    )
    return ChaosRun(settings, data_dir)


def _embedded_run(options: argparse.Namespace, data_dir: Path) -> ChaosRun:
    settings = RunSettings(
        seed=options.seed,
        strikes=plan_strikes(options.embedded_kills, options.seed),
        world=WorldSettings(broker="embedded"),
        load=LoadSettings(clients=options.clients, seed=options.seed),
        within_s=900.0,
        settle_s=120.0,
    )
    return ChaosRun(settings, data_dir)


def _planted(console: Console, options: argparse.Namespace, folder: Path) -> int:
    """How many of the planted faults were seen."""
    seen = 0
    for fault in PLANTED:
        data_dir = folder / fault.name
        run = planted_run(fault, seed=options.seed, data_dir=data_dir)
        outcome = _watched(console, fault.name, run, data_dir, keep=True, red=True)
        found = was_seen(fault, outcome)
        console.print(f"  planted {fault.name}: {'seen' if found else f'[red]not seen[/], kept: {data_dir}'}")
        seen += found
        if found and not options.keep:
            shutil.rmtree(data_dir, ignore_errors=True)
    return seen


def _watched(console: Console, name: str, run: ChaosRun, data_dir: Path, *, keep: bool, red: bool = False) -> Outcome:
    """Runs with one line of progress; keeps the data of a run that went wrong. `red`: it is meant to go wrong."""
    outcome = asyncio.run(_with_progress(name, run))
    print_outcome(console, name, outcome)
    if outcome.violations and not red:
        console.print(f"  [red]{len(outcome.violations)} violations[/], kept: {data_dir}")
    elif not keep:
        shutil.rmtree(data_dir, ignore_errors=True)
    return outcome


async def _with_progress(name: str, run: ChaosRun) -> Outcome:
    async def watch() -> None:
        live = sys.stderr.isatty()
        while True:
            sys.stderr.write(f"\r\x1b[K{name}: {run.line}" if live else f"{name}: {run.line}\n")
            sys.stderr.flush()
            await asyncio.sleep(LINE_EVERY_S if live else LOG_EVERY_S)

    watcher = asyncio.create_task(watch())
    try:
        return await run.run()
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        sys.stderr.write("\n")


if __name__ == "__main__":
    sys.exit(main())
