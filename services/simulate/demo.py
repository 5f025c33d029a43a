"""`thumbloop demo`: the whole loop on this machine, with scripted users, measured from outside.

Phases: *start* the real processes; *chat*: users chat and send thumbs while held-out prompts are asked of release 0;
*settle*: users go on without thumbs until every thumb had the time of three cycles; *measure*: training is paused and
the held-out prompts are asked of the version that is live then; *count*: everything is stopped, and what the clients
wrote down is compared with what the store holds.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from services.embedded.chat_model import ensure_chat_model
from services.embedded.plan import EmbeddedPlan, Overrides, choose_ports
from services.embedded.supervisor import Supervisor
from services.shared.access import ServiceCredential
from services.shared.checkpoints.models import resolve_model
from services.shared.domain.errors import Misconfigured, Unavailable
from services.shared.ids import utc_now
from services.shared.settings import load_settings
from services.simulate.counting import Observed
from services.simulate.held_out import HeldOutAnswer, draw_held_out
from services.simulate.journal import Journal
from services.simulate.learner_view import LearnerClient, LearnerView
from services.simulate.live_table import PlainProgress, draw
from services.simulate.prompts import load_prompts
from services.simulate.report import RunFacts, print_summary, write_report
from services.simulate.tastes import find_taste
from services.simulate.users import Crowd, Habits

HELD_OUT_ANSWERS = 128
END_RESERVE_S = 115.0
"""Kept for measuring, stopping and counting."""
FIRST_CYCLE_S = 40.0
CYCLES_TO_SETTLE = 3
TICK_S = 1.0
STORE_DEADLINE_S = 60.0
PAUSE_DEADLINE_S = 90.0
GATE_KL_NATS = 5.5
GATE_SAMPLES = 12
MARKER = ".thumbloop-demo"
"""Stands in folders that the demo made: they hold nothing else, so that the next run may remove them."""


@dataclass
class Progress:
    """Where the run is, for the live table."""

    phase: str = "starting"
    view: LearnerView | None = None


class Demo:
    """One run. Everything that it needs comes in by the constructor."""

    def __init__(self, *, supervisor: Supervisor, habits: Habits, seed: int, minutes: float, console: Console) -> None:
        self._supervisor = supervisor
        self._plan = supervisor.plan
        self._habits = habits
        self._console = console
        self._started = time.monotonic()
        self._started_at = time.time()
        self._deadline = self._started + minutes * 60
        self._journal = Journal(self._plan.data_dir / "journal.jsonl")
        self._crowd = Crowd(url=self._plan.page_url, habits=habits, journal=self._journal, seed=seed)
        self._progress = Progress()
        self._credential = ServiceCredential(self._plan.secrets_dir, clock=utc_now)

    async def run(self) -> Observed:
        """From ready services to a counted run. Raises Unavailable when a service keeps dying."""
        learner = LearnerClient(f"127.0.0.1:{self._plan.ports['learner']}", self._credential)
        with Live(console=self._console, refresh_per_second=2, transient=False) as live:
            screen = asyncio.create_task(self._watch(learner, live))
            crowd = asyncio.create_task(self._crowd.run())
            try:
                before = await self._chat()
                thumbs_stopped_at = await self._settle()
                after = await self._measure(learner, crowd)
            finally:
                self._crowd.stop()
                await asyncio.gather(crowd, return_exceptions=True)
                screen.cancel()
                await learner.close()
                self._journal.close()
        return Observed(
            before=before,
            after=after,
            journal=self._journal,
            started_at=self._started_at,
            thumbs_stopped_at=thumbs_stopped_at,
            view=self._progress.view,
        )

    async def _chat(self) -> list[HeldOutAnswer]:
        """Thumbs come in; release 0 is measured meanwhile. Ends when just enough time is left to settle."""
        self._progress.phase = "users chat and send thumbs; release 0 is measured"
        before = await self._ask_held_out()
        self._progress.phase = "users chat and send thumbs"
        await self._until(self._time_to_settle, self._deadline)
        return before

    def _time_to_settle(self) -> bool:
        view = self._progress.view
        cycle_s = view.cycle_seconds(FIRST_CYCLE_S) if view else FIRST_CYCLE_S
        return time.monotonic() + CYCLES_TO_SETTLE * cycle_s > self._deadline - END_RESERVE_S

    async def _settle(self) -> float:
        """No new thumbs; the last ones get the time of three cycles. Returns when thumbs stopped (s since 1970)."""
        self._crowd.stop_rating()
        stopped_at = time.time()
        self._progress.phase = "no new thumbs; the last ones find their way"
        await self._until(lambda: False, self._deadline - END_RESERVE_S)
        return stopped_at

    async def _measure(self, learner: LearnerClient, crowd: asyncio.Task[None]) -> list[HeldOutAnswer]:
        self._progress.phase = "training pauses"
        await learner.pause("the demo measures the live version")
        await self._until(self._is_paused, time.monotonic() + PAUSE_DEADLINE_S)
        self._crowd.stop()
        await crowd
        self._progress.phase = "the live version answers the held-out prompts"
        after = await self._ask_held_out()
        self._progress.phase = "the store takes in what is left"
        await self._until(self._store_is_complete, time.monotonic() + STORE_DEADLINE_S)
        return after

    def _is_paused(self) -> bool:
        view = self._progress.view
        return view is not None and view.status.paused and view.status.phase == "paused"

    def _store_is_complete(self) -> bool:
        """Every thumb and every answer that the clients know of is ingested (the comparison by id comes later)."""
        view = self._progress.view
        if view is None:
            return False
        answers = self._journal.counts.answers + 2 * len(self._held_out_prompts())
        return view.status.feedback >= self._journal.counts.thumbs_acknowledged and view.status.rollouts >= answers

    def _held_out_prompts(self) -> tuple[str, ...]:
        return load_prompts("held_out")[:HELD_OUT_ANSWERS]

    async def _ask_held_out(self) -> list[HeldOutAnswer]:
        return await draw_held_out(
            address=f"127.0.0.1:{self._plan.ports['generator']}",
            credential=self._credential,
            prompts=self._held_out_prompts(),
            temperature=self._habits.temperature,
            max_tokens=self._habits.max_tokens,
        )

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition() and time.monotonic() < deadline:
            if self._supervisor.failure:
                raise Unavailable(self._supervisor.failure)
            await asyncio.sleep(TICK_S)

    async def _watch(self, learner: LearnerClient, live: Live) -> None:
        """Looks at the learner and draws, for ever."""
        plain = PlainProgress(self._console)
        while True:
            self._progress.view = await learner.look() or self._progress.view
            elapsed_s = time.monotonic() - self._started
            view, phase = self._progress.view, self._progress.phase
            if self._console.is_terminal:
                counts = self._journal.counts
                live.update(draw(view, counts, started_at=self._started_at, elapsed_s=elapsed_s, phase=phase))
            else:
                plain.tell(view, started_at=self._started_at, elapsed_s=elapsed_s, phase=phase)
            await asyncio.sleep(TICK_S)


def overrides(seed: int) -> Overrides:
    """A short run by few users: unrated answers are ready soon, the reward model counts as skilled once it is better
    than chance beyond doubt, and KL is held under what is claimed."""
    gate = {"max_kl_nats": GATE_KL_NATS, "samples": GATE_SAMPLES}
    return {"learner": {"seed": seed, "unrated_wait_s": 6, "reward_min_auroc_low95": 0.5, "gate": gate}}


def empty_folder(data_dir: Path) -> None:
    """Makes the demo's folder, without what an earlier run has left. Raises Misconfigured for another's folder."""
    if data_dir.exists():
        if not data_dir.is_dir() or (any(data_dir.iterdir()) and not (data_dir / MARKER).is_file()):
            raise Misconfigured(
                f"{data_dir} holds something else than an earlier demo (there is no {MARKER} in it), and the demo "
                "begins with an empty folder. Name another one with --data-dir, or remove this one yourself."
            )
        shutil.rmtree(data_dir)
    data_dir.mkdir(parents=True)
    (data_dir / MARKER).write_text("Made by `thumbloop demo`, which removes this folder when it runs again.\n")


def run_demo(*, seed: int, taste: str, minutes: float, broker: str, data_dir: Path) -> int:
    """Runs it all and writes report and plot. Exit code 0 when the loop closed by every check, else 1."""
    console = Console()
    habits = Habits(taste=find_taste(taste))
    if not load_settings().model.path:
        ensure_chat_model()
    empty_folder(data_dir)
    plan = EmbeddedPlan(
        data_dir=data_dir, ports=choose_ports(prefer_defaults=True), broker=broker, overrides=overrides(seed)
    )
    supervisor = Supervisor(plan, lambda line: console.print(f"[dim]{escape(line)}[/]", highlight=False))
    begun = time.monotonic()
    try:
        supervisor.start()
        console.print(
            f"\n[bold green]Thumbloop is up.[/] Watch users chat, or chat yourself:  [bold]{plan.page_url}[/]\n"
        )
        demo = Demo(supervisor=supervisor, habits=habits, seed=seed, minutes=minutes, console=console)
        observed = asyncio.run(demo.run())
        memory = supervisor.peak_memory_mib()
    finally:
        exit_codes = supervisor.stop()
    facts = RunFacts(
        seconds=time.monotonic() - begun, memory_mib=memory, exit_codes=exit_codes, restarts=supervisor.restarts()
    )
    model_path = resolve_model(load_settings().model)
    console.print("[dim]counting: guard, store, checkpoints[/]")
    report = write_report(observed, facts, plan=plan, habits=habits, seed=seed, model_path=model_path)
    print_summary(console, report, data_dir)
    return 0 if report.closed else 1
