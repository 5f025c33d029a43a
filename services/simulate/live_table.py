"""The table that people watch while the loop runs: a row a release."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from thumbloop.learner.v1 import learner_pb2

from services.simulate.journal import Counts
from services.simulate.learner_view import LearnerView
from services.simulate.measure import NEVER_S

COLUMNS = ("version", "at", "state", "answers", "thumbs up", "reward", "KL nats", "staleness", "thumb to token")
KNOWN_AT_ONCE = ("state", "reward", "KL nats", "staleness")
ROWS = 24


def draw(view: LearnerView | None, counts: Counts, *, started_at: float, elapsed_s: float, phase: str) -> Group:
    """Everything at a glance. `started_at`: seconds since 1970."""
    minutes, seconds = divmod(int(elapsed_s), 60)
    head = Text.assemble(
        (f"{minutes:02d}:{seconds:02d}  ", "bold"),
        (phase, "cyan"),
        f"   answers {counts.answers}   thumbs {counts.thumbs_acknowledged}"
        f"   refused {counts.refused}   cut {counts.cut}",
    )
    if view is None:
        return Group(head, Text("the learner does not answer", style="yellow"))
    table = Table(expand=False)
    for column in COLUMNS:
        is_text = column in ("version", "state")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=is_text)
    for release in view.releases[-ROWS:]:
        table.add_row(*cells(release, started_at), style="dim" if not release.HasField("publish_time") else None)
    return Group(head, table, Text(learner_line(view.status), style="dim"))


class PlainProgress:
    """The same for a log file: a line whenever the phase changes or a release is decided."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._told: set[str] = set()

    def tell(self, view: LearnerView | None, *, started_at: float, elapsed_s: float, phase: str) -> None:
        """What is new since the last call."""
        if phase != self._phase:
            self._phase = phase
            self._console.print(f"{elapsed_s:5.0f} s  {phase}", highlight=False)
        for release in view.releases if view else ():
            if release.version not in self._told:
                self._told.add(release.version)
                known = dict(zip(COLUMNS, cells(release, started_at), strict=True))
                facts = ", ".join(f"{name} {known[name]}" for name in KNOWN_AT_ONCE)
                self._console.print(
                    f"{elapsed_s:5.0f} s  {release.version}  {facts}",
                    highlight=False,
                    soft_wrap=True,
                )


def cells(release: learner_pb2.Release, started_at: float) -> tuple[str, ...]:
    """A release's row; a dash where nothing was measured yet."""
    state = learner_pb2.ReleaseState.Name(release.state).removeprefix("RELEASE_STATE_").lower()
    at = f"{release.commit_time.ToSeconds() - started_at:.0f} s"
    return (
        release.version,
        at if release.commit_time.ToSeconds() else "-",
        state,
        metric(release, "answers", "{:.0f}"),
        metric(release, "thumbs_up_rate", "{:.0%}"),
        metric(release, "reward_mean", "{:+.2f}"),
        metric(release, "kl_per_answer", "{:.2f}"),
        metric(release, "staleness_mean", "{:.1f}"),
        metric(release, "thumb_to_token_p50_s", "{:.0f} s"),
    )


def metric(release: learner_pb2.Release, name: str, form: str) -> str:
    """A dash where it is missing or without end."""
    value = release.metrics.get(name)
    return "-" if value is None or value >= NEVER_S else form.format(value)


def learner_line(status: learner_pb2.GetStatusResponse) -> str:
    """What the learner is at."""
    skill = f", reward model AUROC {status.reward_auroc:.2f}" if status.HasField("reward_auroc") else ""
    why = f" ({status.waiting_reason})" if status.waiting_reason else ""
    return (
        f"learner: {status.phase.replace('_', ' ')}{why}; ready {status.ready}, used {status.used}, "
        f"stale {status.stale}; thumbs {status.thumbs_up} up, {status.thumbs_down} down{skill}"
    )
