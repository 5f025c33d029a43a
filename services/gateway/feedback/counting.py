"""Counts what comes of feedback, what pydantic refuses before any of our code runs included."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from services.shared.domain.errors import Busy, PermissionDenied, ThumbloopError, Unauthenticated, Unavailable
from services.shared.domain.feedback import FeedbackKind
from services.shared.telemetry.metrics import Metrics

_KINDS = frozenset(str(kind) for kind in FeedbackKind)
UNKNOWN = "unknown"


class FeedbackCounts:
    """Labels come from our own lists alone: a client must not be able to make new ones."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def acknowledged(self, kind: str, *, state: str, repeated: bool, seconds: float) -> None:
        """A 2xx."""
        self._count(kind, "repeated" if repeated else state)
        if not repeated:
            self._metrics.observe("thumbloop_gateway_feedback_seconds", seconds)

    def refused(self, kind: str, error: ThumbloopError) -> None:
        """An error of ours."""
        self._count(kind, _outcome(error))

    def invalid(self, body: Any) -> None:
        """A body that is none."""
        kind = body.get("kind") if isinstance(body, dict) else None
        self._count(kind if isinstance(kind, str) else UNKNOWN, "rejected")

    def asked(self, state: str) -> None:
        """A state that was told, or why it was not."""
        self._metrics.increment("thumbloop_gateway_feedback_states_total", state=state)

    def _count(self, kind: str, outcome: str) -> None:
        known = kind if kind in _KINDS else UNKNOWN
        self._metrics.increment("thumbloop_gateway_feedback_total", kind=known, outcome=outcome)


def _outcome(error: ThumbloopError) -> str:
    if isinstance(error, Unavailable):
        return "unavailable"
    if isinstance(error, Busy):
        return "limited"
    if isinstance(error, (Unauthenticated, PermissionDenied)):
        return "denied"
    return "rejected"


def counting_route(counts: FeedbackCounts) -> type[APIRoute]:
    """A route class that counts the bodies which FastAPI refuses."""

    class CountingRoute(APIRoute):
        """As FastAPI documents it: a handler around the route's own."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """Hears of validation errors."""
            handle = super().get_route_handler()

            async def counted(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    if request.method == "POST":
                        counts.invalid(error.body)
                    raise

            return counted

    return CountingRoute
