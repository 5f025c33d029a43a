"""`thumbloop up`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from rich.console import Console

from services.embedded.chat_model import ensure_chat_model
from services.embedded.plan import EmbeddedPlan, Overrides, choose_ports
from services.embedded.supervisor import Supervisor
from services.shared.domain.errors import Unavailable
from services.shared.settings import load_settings

# A person's thumbs are few: four make a new reward model worth training, and what is not rated soon will not be.
PATIENCE: Overrides = {"learner": {"unrated_wait_s": 20, "reward_min_new_thumbs": 4}}


def run_up(*, broker: str, data_dir: Path) -> int:
    """Runs until SIGINT or SIGTERM. Exit code 0 when it was told to stop, 1 when it could not go on."""
    console = Console()
    if not load_settings().model.path:
        with console.status("Converting the chat model (once) ..."):
            ensure_chat_model()
    plan = EmbeddedPlan(data_dir=data_dir, ports=choose_ports(prefer_defaults=True), broker=broker, overrides=PATIENCE)
    supervisor = Supervisor(plan, lambda line: console.print(f"[dim]{line}[/]", highlight=False))
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()
        supervisor.give_up()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        supervisor.start()
        _greet(console, plan)
        while not stop.wait(0.5) and supervisor.failure is None:
            pass
    except Unavailable:
        if not stop.is_set():
            raise
    finally:
        supervisor.stop()
    if supervisor.failure:
        console.print(f"[red]{supervisor.failure}[/]")
        return 1
    console.print("Drained; nothing is left running.")
    return 0


def _greet(console: Console, plan: EmbeddedPlan) -> None:
    ports = plan.ports
    console.print(f"\n[bold green]Thumbloop is up.[/] Chat and click thumbs:  [bold]{plan.page_url}[/]")
    console.print(f"  API docs    {plan.page_url}/docs")
    console.print(f"  metrics     http://127.0.0.1:{ports['gateway_control']}/metrics")
    here = f"--address 127.0.0.1:{ports['learner']} --data-dir {plan.data_dir}"
    console.print(f"  releases    thumbloop policies list {here}", soft_wrap=True)
    console.print(f"  API keys    thumbloop keys list {here}", soft_wrap=True)
    console.print(f"  users       thumbloop simulate --url {plan.page_url}")
    console.print(f"  logs        {plan.data_dir / 'logs'}")
    console.print("Ctrl-C drains and stops everything.\n")
