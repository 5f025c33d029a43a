"""Every metric of every room: name, unit, meaning, and what an operator does when it moves; a file a room.

Code, alerts and dashboards take their names from here. `python -m services.shared.telemetry.catalogue` prints the page
`docs/metrics.md`, which a test holds up to date.
"""

from __future__ import annotations

from services.shared.telemetry.catalogue import gateway, generator, learner, reward, several_rooms
from services.shared.telemetry.catalogue.spec import MetricSpec

__all__ = ["CATALOGUE", "MetricSpec"]

_SPECS = (*gateway.SPECS, *generator.SPECS, *several_rooms.SPECS, *reward.SPECS, *learner.SPECS)

CATALOGUE: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}
