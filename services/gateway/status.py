"""Whether the gateway is alive, and whether it can do its work."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from services.gateway.chat.admission import Admission
from services.gateway.chat.choice import Monotonic
from services.gateway.chat.generation import Generator
from services.shared.bus.interface import Bus
from services.shared.contracts.topics import FEEDBACK, TopicPage
from services.shared.domain.errors import ThumbloopError
from services.shared.telemetry.log import get_logger

CHECK_TIMEOUT_S = 1.0
CONNECT_INTERVAL_S = 0.5
ORDERS_PATIENCE_S = 30.0
"""How long after the start the orders to forget people are waited for. Then feedback is taken all the same: the spool
may be all that is left of the ways to keep it, and what an order finds there is deleted."""


class LogConnection:
    """Knows whether the log has been reached since the start. `run` is a task that ends when it has."""

    def __init__(self, bus: Bus, page: TopicPage, *, interval_s: float = CONNECT_INTERVAL_S) -> None:
        self._bus = bus
        self._page = page
        self._interval_s = interval_s
        self.connected = False

    async def run(self) -> None:
        """Tries until the topic `feedback` is known to be there. No failure ends it sooner."""
        told: type[Exception] | None = None
        while not self.connected:
            try:
                await asyncio.to_thread(self._bus.ensure_topics, [self._page])
                self.connected = True
            except ThumbloopError as error:
                if told is not type(error):
                    get_logger().warning("log_unreachable", topic=FEEDBACK, error=error.message)
                told = type(error)
            except Exception as error:  # else nobody tries again, and the gateway is never ready
                if told is not type(error):
                    get_logger().error("log_not_reached", topic=FEEDBACK, exc_info=error)
                told = type(error)
            if not self.connected:
                await asyncio.sleep(self._interval_s)


class Room(Protocol):
    """A disk that takes feedback while the log is away."""

    @property
    def has_room(self) -> bool:
        """Whether it takes more."""


class Orders(Protocol):
    """The learner's, to forget people."""

    @property
    def caught_up(self) -> bool:
        """All that were there at the start are carried out."""


class Readiness:
    """Ready: not shutting down, a generator with a live version answers, feedback can be made durable (the log has been
    reached, or there is a spool with room), and who was forgotten has been read from a log that is there.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        log: LogConnection,
        spool: Room | None,
        orders: Orders,
        admission: Admission,
        monotonic: Monotonic,
    ) -> None:
        self._generator = generator
        self._log = log
        self._spool = spool
        self._orders = orders
        self._admission = admission
        self._monotonic = monotonic
        self._orders_until = monotonic() + ORDERS_PATIENCE_S

    async def missing(self) -> list[str]:
        """What is missing, in words; empty when ready."""
        missing = []
        if self._admission.draining:
            missing.append("shutting down")
        if not self._log.connected and (self._spool is None or not self._spool.has_room):
            disk = "the spool is full" if self._spool else "there is no spool"
            missing.append(f"the log (Kafka) has not been reached yet, and {disk}")
        if self._log.connected and not self._orders.caught_up and self._monotonic() < self._orders_until:
            missing.append("the orders to forget people have not all been carried out yet")
        try:
            status = await self._generator.status(timeout_s=CHECK_TIMEOUT_S)
        except ThumbloopError as error:
            missing.append(f"no generator answers ({error.reason})")
        else:
            if not status.live_version:
                missing.append("the generator has no live version yet")
        return missing


def health_router(readiness: Readiness) -> APIRouter:
    """Probes, on both ports."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        """Always, while it answers at all."""
        return {"status": "alive"}

    @router.get(
        "/readyz", summary="Can it do its work?", responses={503: {"description": "Not ready; `missing` says why."}}
    )
    async def readyz() -> JSONResponse:
        """200 when ready, else 503 with what is missing."""
        missing = await readiness.missing()
        content: dict[str, Any] = {"status": "not ready" if missing else "ready", "missing": missing}
        return JSONResponse(content, status_code=503 if missing else 200)

    return router
