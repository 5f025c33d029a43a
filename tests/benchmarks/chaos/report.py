"""From outcomes to figures, a table, and the lines that a reader must see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from tests.benchmarks.chaos.blows import KILL, kills_of
from tests.benchmarks.chaos.run import Outcome
from tests.benchmarks.chaos.verdict import experiences_trained, published_line
from tests.benchmarks.chaos.world import VICTIMS

SHOWN = 20
"""Lines of each kind that are printed; figures count all."""

Figures = dict[str, float]


def main_figures(outcome: Outcome, seed: int) -> Figures:
    """Of the run that makes the claim."""
    kills, verdict = kills_of(outcome.blows), outcome.verdict
    faults = Counter(blow.what for blow in outcome.blows if blow.what != KILL)
    again = [told for told in outcome.ledger.acknowledged if len({one.revision for one in told.acknowledged}) > 1]
    return {
        "kills": sum(kills.values()),
        "kills_fewest_of_a_service": min(kills[victim] for victim in VICTIMS),
        "releases": len(published_line(outcome.store.policies)) - 1,
        "experiences_trained": experiences_trained(outcome.store),
        "spooled": outcome.ledger.spooled(),
        "acknowledged": len(outcome.ledger.acknowledged),
        "lost": len(verdict.lost),
        "counted_twice": len(verdict.counted_twice),
        "trained_twice": len(verdict.trained_twice),
        "unresolved": len(verdict.unresolved),
        "orphans_unexplained": len(verdict.orphans_unexplained),
        "orphans_explained": len(verdict.orphans),
        "orphans_of_whole_answers": verdict.orphans_of_whole_answers,
        "answered_again_otherwise": len(again),
        "unknown": sum(not told.acknowledged and not told.refused for told in outcome.ledger.statements.values()),
        "chats": len(outcome.ledger.answers),
        "chats_refused": outcome.ledger.refused_chats,
        "chats_cut": outcome.ledger.cut_chats,
        "stalls": bool(outcome.stalled),
        "seed": seed,
        **{f"kills_of_{victim}": kills[victim] for victim in VICTIMS},
        **{f"network_{what}": count for what, count in sorted(faults.items())},
    }


def embedded_figures(outcome: Outcome) -> Figures:
    """Of the same on the embedded broker."""
    verdict = outcome.verdict
    return {
        "embedded_kills": sum(kills_of(outcome.blows).values()),
        "embedded_acknowledged": len(outcome.ledger.acknowledged),
        "embedded_spooled": outcome.ledger.spooled(),
        "embedded_lost": len(verdict.lost),
        "embedded_counted_twice": len(verdict.counted_twice),
        "embedded_trained_twice": len(verdict.trained_twice),
        "embedded_unresolved": len(verdict.unresolved),
        "embedded_orphans_unexplained": len(verdict.orphans_unexplained),
        "embedded_orphans_explained": len(verdict.orphans),
        "embedded_orphans_of_whole_answers": verdict.orphans_of_whole_answers,
        "embedded_stalls": bool(outcome.stalled),
    }


def aims(kills: int, faults: int) -> dict[str, str]:
    """Conditions for a run of so many kills; a full one has a hundred."""
    full = kills >= 100
    none = (
        "lost",
        "counted_twice",
        "trained_twice",
        "unresolved",
        "orphans_unexplained",
        "orphans_of_whole_answers",
        "stalls",
    )
    return {
        "kills": f">= {kills}",
        "kills_fewest_of_a_service": f">= {15 if full else kills * 15 // 100}",
        "releases": f">= {20 if full else 1}",
        "experiences_trained": f">= {1000 if full else 16}",
        "spooled": ">= 1",
        "planted_faults_seen": f">= {faults}",
        **dict.fromkeys(none, "== 0"),
        **{f"embedded_{name}": "== 0" for name in none},
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
