"""The gateway's two HTTP applications, from parts that `main.py` made: public, and control."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from services.gateway.chat.choice import Monotonic
from services.gateway.errors import install_error_handlers
from services.gateway.feedback.accepting import FeedbackAcceptor
from services.gateway.feedback.short_way import ShortWay
from services.gateway.middleware import BodyLimit, RequestMetrics
from services.shared.telemetry.metrics import Metrics

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def public_app(
    *,
    routers: Sequence[APIRouter],
    routes: Sequence[BaseRoute],
    metrics: Metrics,
    monotonic: Monotonic,
    max_body_bytes: int,
    cors_origins: Sequence[str],
    acceptor: FeedbackAcceptor | None = None,
) -> ASGIApp:
    """What users and browsers reach. With an `acceptor`, right feedback takes the short way to it.

    What holds for every request stands around FastAPI, not inside it, so that the short way needs nothing of FastAPI.
    """
    documented = _app("Thumbloop", "OpenAI's chat API, with feedback that trains the model that answers.", routers)
    documented.router.routes.extend(routes)
    app: ASGIApp = documented
    if acceptor is not None:
        app = ShortWay(app, acceptor=acceptor)
    app = BodyLimit(app, max_bytes=max_body_bytes)
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    return RequestMetrics(app, metrics=metrics, monotonic=monotonic)


def control_app(*, routers: Sequence[APIRouter], metrics: Metrics) -> FastAPI:
    """What operators and probes reach. It is to be put behind a `ControlGate`."""
    app = _app("Thumbloop control", "Metrics, probes and releases.", routers)

    @app.get("/metrics", summary="Prometheus metrics", tags=["health"], response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """All metrics of this process."""
        return Response(metrics.render(), media_type=METRICS_TYPE)

    return app


def _app(title: str, description: str, routers: Sequence[APIRouter]) -> FastAPI:
    app = _Described(
        title=title,
        description=description,
        version=version("thumbloop"),
        docs_url=None,
        redoc_url=None,
    )
    install_error_handlers(app)
    for router in routers:
        app.include_router(router)
    return app


class _Described(FastAPI):
    """FastAPI describes a wrong request's answer as 422 in a shape of its own; here it is 400, as documented."""

    def openapi(self) -> dict[str, Any]:
        """The description as served."""
        description = super().openapi()
        for operation in (operation for path in description["paths"].values() for operation in path.values()):
            operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            description["components"]["schemas"].pop(name, None)
        return description
