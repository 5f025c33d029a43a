"""The catalogue as a page for people."""

from __future__ import annotations

from collections.abc import Iterable

from services.shared.telemetry.catalogue import CATALOGUE, MetricSpec

_HEAD = """# Metrics

Every room serves these on its metrics port (the gateway on its control port) at `/metrics`, in Prometheus' format.
This page is made from the catalogue: `python -m services.shared.telemetry.catalogue > docs/metrics.md`.
"""


def render_page(specs: Iterable[MetricSpec] = CATALOGUE.values()) -> str:
    """The page in Markdown: a table for each set of rooms, in the catalogue's order."""
    groups: dict[tuple[str, ...], list[MetricSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.rooms, []).append(spec)
    parts = [_HEAD]
    for rooms, members in groups.items():
        rows = [
            f"| `{spec.name}` | {spec.kind} | {spec.unit} | {', '.join(spec.labels) or '–'} | {spec.help} | "
            f"{spec.operator} |"
            for spec in members
        ]
        title = " and ".join(rooms).capitalize()
        parts.append(
            "\n".join(
                [
                    f"## {title}\n",
                    "| metric | kind | unit | labels | what it says | what to do when it moves |",
                    "|---|---|---|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join(parts)
