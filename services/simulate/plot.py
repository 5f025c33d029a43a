"""The picture of a run: four panels over one axis of time, one mark for each release.

Thumbs-up rate with its standard error, the reward model's reward, KL to the reference policy with the staleness of what
was trained on, and the seconds from a thumb to the first token of a policy that learned from it. Values that were not
observed are left out, never drawn as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
MOST_LABELS = 12
THUMBS, REWARD, KL, DELAY = "#0b7a75", "#7048b6", "#c2410c", "#1d4ed8"


@dataclass(frozen=True, kw_only=True)
class ReleasePoint:
    """What was seen of one release while it served. ``None``: not observed.

    ``time_s`` counts from the start of the run; ``thumbs`` is how many thumbs the rate rests on; ``kl`` is in nats per
    answer; ``staleness`` in updates.
    """

    version: str
    time_s: float
    thumbs_up_rate: float | None = None
    thumbs: int = 0
    reward: float | None = None
    kl: float | None = None
    staleness: float | None = None
    thumb_to_token_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Approval on held-out prompts before and after, each with its standard error: drawn as two bands."""

    before: float
    before_error: float
    after: float
    after_error: float


def plot_run(points: Sequence[ReleasePoint], path: Path, *, title: str, held_out: HeldOut | None = None) -> None:
    """Draw a run into a PNG at ``path``, whose folder is made where it is missing.

    Raises ``ValueError`` where there is no release to draw. Uses no display and no global matplotlib state.
    """
    if not points:
        raise ValueError("a plot needs at least one release: the run published none")
    ordered = sorted(points, key=lambda point: point.time_s)
    figure = Figure(figsize=(10, 7.2), dpi=150, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.045, ha="left", fontsize=15, fontweight="bold", color=INK)
    (thumbs, reward), (kl, delay) = figure.subplots(2, 2, sharex=True)
    _draw_thumbs(thumbs, ordered, held_out)
    _draw_series(reward, ordered, lambda point: point.reward, color=REWARD)
    _dress(reward, "Reward", "in thumb units: +1 is a sure thumb up, -1 a sure thumb down")
    reward.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    _draw_series(kl, ordered, lambda point: point.kl, color=KL)
    _dress(kl, "KL to the reference policy", "nats per answer" + _staleness(ordered), floor=0)
    _draw_series(delay, ordered, lambda point: point.thumb_to_token_s, color=DELAY)
    _dress(delay, "Thumb to token", "seconds from a thumb to a token that learned from it", floor=0)
    for axes in (kl, delay):
        axes.set_xlabel("minutes since the start", color=MUTED, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_thumbs(axes: Axes, points: Sequence[ReleasePoint], held_out: HeldOut | None) -> None:
    rated = [point for point in points if point.thumbs_up_rate is not None and point.thumbs > 0]
    rates = [point.thumbs_up_rate or 0.0 for point in rated]
    errors = [math.sqrt(rate * (1 - rate) / point.thumbs) for rate, point in zip(rates, rated, strict=True)]
    minutes = [point.time_s / 60 for point in rated]
    axes.errorbar(minutes, rates, yerr=errors, fmt="none", ecolor=THUMBS, alpha=0.35, capsize=3, zorder=2)
    _draw_series(axes, rated, lambda point: point.thumbs_up_rate, color=THUMBS)
    if held_out:
        _draw_band(axes, held_out.before, held_out.before_error, "before", MUTED)
        _draw_band(axes, held_out.after, held_out.after_error, "after", THUMBS)
    _dress(axes, "Thumbs up", "share of thumbs for each release, ± one standard error")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _draw_band(axes: Axes, value: float, error: float, label: str, color: str) -> None:
    axes.axhspan(value - error, value + error, color=color, alpha=0.10, linewidth=0, zorder=0)
    axes.axhline(value, color=color, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"held-out\n{label} {value:.0%}",
        xy=(1.01, value),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=color,
    )


def _draw_series(
    axes: Axes, points: Sequence[ReleasePoint], read: Callable[[ReleasePoint], float | None], *, color: str
) -> None:
    """A line with one labelled mark for each release that has a finite value."""
    drawn = [(point.time_s / 60, value, point.version) for point in points if _finite(value := read(point))]
    if not drawn:
        axes.text(0.5, 0.5, "not observed", transform=axes.transAxes, ha="center", color=MUTED)
        return
    minutes, values, _ = zip(*drawn, strict=True)
    axes.plot(
        minutes,
        values,
        color=color,
        linewidth=1.8,
        marker="o",
        markersize=6,
        markeredgecolor="white",
        zorder=3,
        clip_on=False,
    )
    every = math.ceil(len(drawn) / MOST_LABELS)
    for minute, value, version in drawn[::-every]:
        axes.annotate(
            version,
            (minute, value),
            xytext=(-4, 6),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=4,
        )


def _staleness(points: Sequence[ReleasePoint]) -> str:
    seen = [point.staleness for point in points if point.staleness is not None]
    return f"; trained on rollouts {fmean(seen):.1f} updates old on average, {max(seen):.1f} at most" if seen else ""


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _dress(axes: Axes, title: str, subtitle: str, *, floor: float | None = None) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=18)
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=8, color=MUTED).set_in_layout(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.08, y=0.2)
    if floor is not None:
        axes.set_ylim(bottom=floor)
        if (highest := float(axes.dataLim.y1)) > floor and math.isfinite(highest):
            axes.set_ylim(top=highest + 0.2 * (highest - floor))  # the margin of values far from it would be too small
