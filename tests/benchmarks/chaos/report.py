"""From outcomes to figures, a table, and the lines that a reader must see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from services.embedded.plan import ROOMS
from tests.benchmarks.chaos.blows import KILL, kills_of
from tests.benchmarks.chaos.lineage import experiences_trained, published_line
from tests.benchmarks.chaos.links import LINKS
from tests.benchmarks.chaos.run import Outcome
from tests.benchmarks.chaos.verdict import FINDINGS
from tests.benchmarks.chaos.world import BROKER, VICTIMS

SHOWN = 20
"""Lines of each kind that are printed; figures count all."""
NONE = (
    "lost",
    "counted_twice",
    "trained_twice",
    "lineage_differs",
    "unresolved",
    "orphans_unexplained",
    "orphans_of_whole_answers",
    "stalls",
    "failed_drains",
)
"""Figures that must be 0, of whatever broker."""

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How much is run. `embedded_kills`: of the embedded broker."""

    kills: int = 100
    embedded_kills: int = 20
    model: str = "tiny"

    @property
    def is_full(self) -> bool:
        """The one that figures are kept of."""
        return self.kills >= 100 and self.embedded_kills >= 20 and self.model == "tiny"

    @property
    def embedded_of_each_room(self) -> int:
        """Kills of each room beside those of the embedded broker."""
        return 3 if self.embedded_kills >= 20 else 1


def main_figures(outcome: Outcome, seed: int) -> Figures:
    """Of the run that makes the claim."""
    kills = kills_of(outcome.blows)
    others = [blow for blow in outcome.blows if blow.what != KILL]
    faults, struck = Counter(blow.what for blow in others), Counter(blow.target for blow in others)
    again = [told for told in outcome.ledger.acknowledged if len({one.revision for one in told.acknowledged}) > 1]
    return {
        "kills": sum(kills.values()),
        "kills_fewest_of_a_service": min(kills[victim] for victim in VICTIMS),
        "releases": len(published_line(outcome.store.policies)) - 1,
        "experiences_trained": experiences_trained(outcome.store),
        **_promises(outcome),
        "answered_again_otherwise": len(again),
        "unknown": sum(not told.acknowledged and not told.refused for told in outcome.ledger.statements.values()),
        "chats": len(outcome.ledger.answers),
        "chats_refused": outcome.ledger.refused_chats,
        "chats_cut": outcome.ledger.cut_chats,
        "seed": seed,
        **{f"kills_of_{victim}": kills[victim] for victim in VICTIMS},
        **{f"network_{what}": count for what, count in sorted(faults.items())},
        "network_links_in_use": sum(outcome.carried.get(link, 0) > 0 for link in LINKS),
        "network_faults_fewest_of_a_link": min(struck[link] for link in LINKS),
        **{f"network_faults_of_{link}": struck[link] for link in LINKS},
    }


def embedded_figures(outcome: Outcome) -> Figures:
    """Of the embedded broker, which may lose its tail."""
    kills = kills_of(outcome.blows)
    figures = {
        "kills": sum(kills.values()),
        "kills_of_broker": kills[BROKER],
        "kills_fewest_of_a_service": min(kills[room] for room in ROOMS),
        "lost_tails": outcome.repairs.lost_tails,
        "resent": outcome.repairs.sent_again,
        "releases": len(published_line(outcome.store.policies)) - 1,
        "experiences_trained": experiences_trained(outcome.store),
        **_promises(outcome),
    }
    return {f"embedded_{name}": value for name, value in figures.items()}


def _promises(outcome: Outcome) -> Figures:
    """What was acknowledged, and what became of it."""
    verdict = outcome.verdict
    return {
        "spooled": outcome.ledger.spooled(),
        "acknowledged": len(outcome.ledger.acknowledged),
        **{name: len(getattr(verdict, name)) for name in FINDINGS},
        "orphans_explained": len(verdict.orphans),
        "orphans_of_whole_answers": verdict.orphans_of_whole_answers,
        "stalls": int(bool(outcome.stalled)),
        "failed_drains": len(outcome.failed_drains),
    }


def aims(form: Form, faults: int) -> dict[str, str]:
    """Conditions for a run of this form, and so many planted faults."""
    full = form.is_full
    return {
        "kills": f">= {form.kills}",
        "kills_fewest_of_a_service": f">= {15 if form.kills >= 100 else form.kills * 15 // 100}",
        "network_links_in_use": f"== {len(LINKS)}",
        **({"network_faults_fewest_of_a_link": ">= 10"} if full else {}),
        "releases": f">= {20 if full else 1}",
        "experiences_trained": f">= {1000 if full else 16}",
        "spooled": ">= 1",
        "planted_faults_seen": f">= {faults}",
        "planted_control_clean": "== 1",
        "embedded_kills_of_broker": f">= {form.embedded_kills}",
        "embedded_kills_fewest_of_a_service": f">= {form.embedded_of_each_room}",
        "embedded_lost_tails": ">= 1",
        "embedded_resent": ">= 1",
        "embedded_releases": f">= {5 if full else 1}",
        "embedded_experiences_trained": f">= {80 if full else 16}",
        "embedded_acknowledged": f">= {1000 if full else 50}",
        **dict.fromkeys(NONE, "== 0"),
        **{f"embedded_{name}": "== 0" for name in NONE},
    }


def missed(figures: Mapping[str, float], wanted: Mapping[str, str]) -> list[str]:
    """Aims that the figures do not meet; those of parts that were not run are left out."""
    found = []
    for name, condition in wanted.items():
        if name in figures:
            sign, bound = condition.split()
            value = figures[name]
            if not (value >= float(bound) if sign == ">=" else value == float(bound)):
                found.append(f"{name} is {value:g}, wanted {condition}")
    return found


def print_outcome(console: Console, name: str, outcome: Outcome) -> None:
    """Findings, and each orphan beside the kill that explains it."""
    console.print(f"[bold]{name}[/]: {outcome.seconds:.0f} s, exit codes {outcome.exit_codes}")
    for line in outcome.violations[:SHOWN]:
        console.print(f"  [red]{line}[/]", highlight=False)
    for line in outcome.verdict.orphans[:SHOWN]:
        console.print(f"  orphan {line}", highlight=False)


def print_figures(console: Console, figures: Mapping[str, float], wanted: Mapping[str, str]) -> None:
    """The table."""
    table = Table("figure", "value", "aim")
    for name, value in figures.items():
        table.add_row(name, f"{value:g}", wanted.get(name, ""))
    console.print(table)
