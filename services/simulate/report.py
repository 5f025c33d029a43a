"""The report of a demo run: `report.json`, `report.png`, and a summary for whoever watched."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.embedded.plan import EmbeddedPlan
from services.learner.state.queries.thumb_to_token import thumb_times
from services.shared.checkpoints import CheckpointStore
from services.shared.domain.release import version_number
from services.shared.ids import utc_now
from services.shared.store.database import open_database
from services.simulate.counting import (
    Figures,
    Observed,
    delay_figures,
    flow_figures,
    judge_run,
    learning_figures,
    missing_feedback,
    release_rows,
)
from services.simulate.measure import NEVER_S
from services.simulate.plot import HeldOut, ReleasePoint, plot_run
from services.simulate.store_reader import PublishedPolicy, published_policies
from services.simulate.users import Habits

SHOWN = (
    ("releases", "{:.0f}"),
    ("approval_before", "{:.2f}"),
    ("approval_after", "{:.2f}"),
    ("approval_gain", "{:+.2f}"),
    ("approval_gain_low95", "{:+.2f}"),
    ("kl_per_answer", "{:.2f} nats"),
    ("distinct2_ratio", "{:.2f}"),
    ("answers", "{:.0f}"),
    ("refused_requests", "{:.0f}"),
    ("cut_responses", "{:.0f}"),
    ("feedback_acknowledged", "{:.0f}"),
    ("feedback_in_store", "{:.0f}"),
    ("thumb_to_token_p50_s", "{:.0f} s"),
    ("thumb_to_token_p99_s", "{:.0f} s"),
    ("thumb_to_token_censored_share", "{:.1%}"),
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """`figures` by key, `checks` by name, `details` for whoever asks why."""

    figures: Figures
    checks: dict[str, bool]
    details: dict[str, object]

    @property
    def closed(self) -> bool:
        """The loop closed: every check holds."""
        return all(self.checks.values())


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the supervisor knows of a run."""

    seconds: float
    memory_mib: Mapping[str, float]
    exit_codes: Mapping[str, int]
    restarts: Mapping[str, int]


def write_report(
    observed: Observed, facts: RunFacts, *, plan: EmbeddedPlan, habits: Habits, seed: int, model_path: Path
) -> Report:
    """Counts, and writes both files into the run's folder. Nothing may have the store open any more."""
    database = open_database(f"sqlite:///{(plan.data_dir / 'store.db').resolve()}")
    try:
        policies = published_policies(database)
        missing = missing_feedback(observed, database)
        learned = learning_figures(observed, habits.taste, database, model_path)
        delays = delay_figures(thumb_times(database, now=utc_now()))
    finally:
        database.close()
    releases = release_rows(policies, CheckpointStore((plan.data_dir / "checkpoints").resolve().as_uri()))
    figures = {
        "releases": float(sum(bool(row["adapter_sha256"]) for row in releases)),
        **learned,
        **flow_figures(observed, missing),
        **delays,
        "seconds": round(facts.seconds, 1),
    }
    report = Report(
        figures=figures,
        checks=judge_run(figures, releases, facts.exit_codes, facts.restarts),
        details={
            "seed": seed,
            "taste": habits.taste.name,
            "broker": plan.broker,
            "measured_version": observed.after[0].policy_version,
            "thumbs_stopped_after_s": round(observed.thumbs_stopped_at - observed.started_at, 1),
            "peak_memory_mib": {name: round(value) for name, value in facts.memory_mib.items()},
            "exit_codes": dict(facts.exit_codes),
            "restarts": dict(facts.restarts),
            "errors": observed.journal.counts.errors,
            "missing_feedback_ids": missing[:20],
            "machine": machine(),
            "commit": commit(),
            "releases_detail": releases,
        },
    )
    content = {"closed": report.closed, **figures, "checks": report.checks, **report.details}
    (plan.data_dir / "report.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    title = f"Thumbloop demo: taste “{habits.taste.name}”, seed {seed}"
    plot_run(points(policies, observed), plan.data_dir / "report.png", title=title, held_out=held_out_band(figures))
    return report


def points(policies: Sequence[PublishedPolicy], observed: Observed) -> list[ReleasePoint]:
    """Releases as the plot wants them."""

    def known(policy: PublishedPolicy, name: str) -> float | None:
        value = policy.metrics.get(name)
        return None if value is None or value >= NEVER_S else value

    live = {release.version: dict(release.metrics) for release in observed.view.releases} if observed.view else {}
    merged = [
        PublishedPolicy(**{**vars(policy), "metrics": {**policy.metrics, **live.get(policy.version, {})}})
        for policy in policies
    ]
    return [
        ReleasePoint(
            version=f"v{version_number(policy.version)}",
            time_s=max(0.0, policy.publish_time.timestamp() - observed.started_at),
            thumbs_up_rate=known(policy, "thumbs_up_rate"),
            thumbs=int(known(policy, "thumbs") or 0),
            reward=known(policy, "reward_mean"),
            kl=known(policy, "kl_per_answer"),
            staleness=known(policy, "staleness_mean"),
            thumb_to_token_s=known(policy, "thumb_to_token_p50_s"),
        )
        for policy in merged
    ]


def held_out_band(figures: Figures) -> HeldOut:
    """Approval before and after as the plot wants it."""
    return HeldOut(
        before=figures["approval_before"],
        before_error=figures["approval_before_se"],
        after=figures["approval_after"],
        after_error=figures["approval_after_se"],
    )


def machine() -> dict[str, object]:
    """What the run had to work with."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cores": os.cpu_count(), "memory_gib": round(memory_gib, 1), "processor": platform.machine()}


def commit() -> str:
    """The checkout's commit; empty outside one."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def print_summary(console: Console, report: Report, folder: Path) -> None:
    """Figures, checks, and where to look further."""
    table = Table(title="The demo in figures", show_header=False)
    for key, form in SHOWN:
        value = report.figures[key]
        table.add_row(key, "never" if key.endswith("_s") and value >= NEVER_S else form.format(value))
    console.print(table)
    for name, holds in report.checks.items():
        console.print(f"{'[green]ok[/] ' if holds else '[red]NO[/] '} {name}", highlight=False)
    console.print(f"\nreport  {folder / 'report.json'}\nplot    {folder / 'report.png'}\nlogs    {folder / 'logs'}")
    console.print("[bold green]The loop closed.[/]" if report.closed else "[bold red]The loop did not close.[/]")
