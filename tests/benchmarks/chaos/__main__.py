"""`make test-chaos`: the full form, or a part of it. Exit code 0: the promise held, and the harness sees.

See `parts` for what is run. In the full form a part that ended well is kept in `.bench/chaos-cells`, and not run again
for the same code and options; when all have ended well, figures go to `.bench/chaos.json`, and every orphan, beside the
kill that explains it, to `.bench/chaos-orphans.txt`. The data folder of a run that went wrong is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from services.shared.domain.errors import ThumbloopError
from tests.benchmarks.cells import measured_code
from tests.benchmarks.chaos.faults import PLANTED
from tests.benchmarks.chaos.kept import KeptParts
from tests.benchmarks.chaos.parts import PARTS, Brought, Options, Watch, run_part
from tests.benchmarks.chaos.report import Form, aims, missed, print_figures, print_outcome
from tests.benchmarks.chaos.run import ChaosRun, Outcome

LINE_EVERY_S = 1.0
LOG_EVERY_S = 15.0
BENCH = Path(".bench")


class PartFailed(Exception):
    """It ended, and not well; it has been said why."""


def main() -> int:
    """Runs the parts one after the other."""
    given = _options()
    console = Console(soft_wrap=True)
    options = Options(
        form=Form(kills=given.kills, embedded_kills=given.embedded_kills, model=given.model),
        seed=given.seed,
        clients=given.clients,
        within_s=given.minutes * 60,
    )
    wanted = aims(options.form, len(PLANTED))
    kept = KeptParts(BENCH, code=measured_code(), options=options, again=given.again) if options.form.is_full else None
    folder = given.data_dir / time.strftime("%Y%m%d-%H%M%S")
    watch = partial(_watched, console, keep=given.keep)
    failed = False
    for part in given.parts:
        run = partial(_run, console, part, options, folder, watch, wanted)
        try:
            print_figures(console, kept.get(part, run) if kept else run().figures, wanted)
        except PartFailed:
            failed = True
        except ThumbloopError as error:
            console.print(f"[red]{error.message}[/]\nkept: {folder}")
            return 1
    if failed:
        return 1
    for path in kept.write(wanted) if kept else []:
        console.print(str(path))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.benchmarks.chaos")
    parser.add_argument("--kills", type=int, default=100, help="in the main part")
    parser.add_argument("--embedded-kills", type=int, default=20, help="of the embedded broker itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45.0, help="bound of the main part")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--model", choices=("tiny", "scripted"), default="tiny", help="tiny: real PPO, real engine")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="the data folder of parts that went well, too")
    parser.add_argument("--again", action="store_true", help="parts that are kept, too")
    parser.add_argument("--data-dir", type=Path, default=Path(".thumbloop/chaos"))
    return parser.parse_args()


def _run(
    console: Console, part: str, options: Options, folder: Path, watch: Watch, wanted: Mapping[str, str]
) -> Brought:
    """Raises PartFailed for figures that do not meet their aims."""
    brought = run_part(part, options, folder, watch)
    if failures := missed(brought.figures, wanted):
        print_figures(console, brought.figures, wanted)
        for line in failures:
            console.print(f"[red]{line}[/]")
        raise PartFailed(part)
    return brought


def _watched(console: Console, name: str, run: ChaosRun, *, wrong: Callable[[Outcome], str], keep: bool) -> Outcome:
    """Runs with one line of progress; keeps the data of a run that went wrong."""
    outcome = asyncio.run(_with_progress(name, run))
    print_outcome(console, name, outcome)
    why = wrong(outcome)
    console.print(f"  [red]{why}[/], kept: {run.data_dir}" if why else "  as it should be")
    if not why and not keep:
        shutil.rmtree(run.data_dir, ignore_errors=True)
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
