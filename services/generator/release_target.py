"""Between the follower of releases and the engine."""

from __future__ import annotations

from pathlib import Path

from services.generator.engines.interface import Engine
from services.shared.domain.release import Announcement
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()


class EngineTarget:
    """A `StageTarget`: stages and verifies while the engine serves, then flips between two decode steps."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def stage(self, announcement: Announcement, folder: Path) -> None:
        """The files' digests were checked by the follower; here, whether the engine can serve what is in them."""
        self._engine.stage(announcement.version, folder)
        self._engine.verify(announcement.version)

    def flip(self, announcement: Announcement) -> None:
        """Keeps how long decoding stood still."""
        report = self._engine.flip(announcement.version)
        self._metrics.observe("thumbloop_generator_pause_seconds", report.held_s)
        _log.info(
            "policy_flipped",
            version=announcement.version,
            held_ms=round(report.held_s * 1000, 3),
            wait_ms=round(report.wait_s * 1000, 1),
        )
