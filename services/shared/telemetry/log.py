"""Logs: events with named values, as text for people or one JSON object a line.

`configure` is called once, by a room's wiring; modules take `get_logger()`. An event is a short snake_case word
("stage_failed"); everything that varies is a named value. What libraries log by `logging` goes the same way.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from services.shared.settings.model import DeploymentSettings

_NOISY = ("kafka", "httpx", "httpcore", "asyncio", "filelock", "urllib3")
"""Libraries whose info lines say nothing to an operator."""


def configure(deployment: DeploymentSettings, room: str, stream: TextIO | None = None) -> None:
    """Sends all log events to `stream` (standard error). Every line names the deployment and the room."""
    level = logging.getLevelNamesMapping()[deployment.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _Origin(deployment=deployment.name, room=room),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    output: TextIO = stream or sys.stderr
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(deployment, output))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # It warns whenever one of its own steps takes a tenth of a second, as it does on any busy machine.
    logging.getLogger("kafka.net.selector").setLevel(max(level, logging.ERROR))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(**values: object) -> FilteringBoundLogger:
    """A logger whose lines carry `values`. May be made before `configure`."""
    return cast(FilteringBoundLogger, structlog.get_logger("thumbloop", **values))


class _Origin:
    """Adds who speaks."""

    def __init__(self, **values: str) -> None:
        self._values = values

    def __call__(self, logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        for name, value in self._values.items():
            event.setdefault(name, value)
        return event


def _rendering(deployment: DeploymentSettings, output: TextIO) -> list[Processor]:
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if deployment.log_json:
        return [clean, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # The renderer's own tracebacks show local variables: what users wrote, and keys.
    plain = structlog.dev.plain_traceback
    return [clean, structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=plain)]
