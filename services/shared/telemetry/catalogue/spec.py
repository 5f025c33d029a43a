"""What is said of a metric, and the buckets of histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric. `rooms` expose it; `unit` is what its number counts; `buckets` are a histogram's upper bounds."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...] = ()
    rooms: tuple[str, ...]
    help: str
    operator: str
    buckets: tuple[float, ...] = ()


FAST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SLOW_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
SMALL_COUNTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
