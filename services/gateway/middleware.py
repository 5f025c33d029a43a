"""What happens to every request: bounds on its body, and its metrics. Plain ASGI, so that streams pass untouched."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.chat.choice import Monotonic
from services.gateway.errors import error_response, route_of
from services.shared.domain.errors import InvalidInput
from services.shared.telemetry.metrics import Metrics

BODY_TIMEOUT_S = 30.0
"""How long a body may take to arrive. Who sends half of one would else hold a connection for good, and there are only
so many."""


class BodyLimit:
    """Refuses bodies of more than `max_bytes`, declared or not, before they fill the memory, and those that have not
    arrived within `timeout_s`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._patience = _Patience(timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse_large(scope, receive, send)
            return
        bounded = _BoundedBody(receive, self._max_bytes)
        guard = _SendGuard(send)
        self._patience.begin(bounded)
        try:
            await self._app(scope, bounded, guard)
        except _TooLargeError:
            if not guard.started:
                await self._refuse_large(scope, receive, send)
        except _TooSlowError:
            if not guard.started:
                await self._refuse_slow(scope, receive, send)
        finally:
            self._patience.end(bounded)

    async def _refuse_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The body is larger than {self._max_bytes} bytes. Send less text."
        response = error_response(InvalidInput(message, reason="BODY_TOO_LARGE"))
        response.status_code = 413
        await response(scope, receive, send)

    async def _refuse_slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """And closes the connection: what still comes of the body is no request."""
        message = f"The body did not arrive within {self._patience.timeout_s:g} seconds. Send it again, all of it."
        response = error_response(InvalidInput(message, reason="BODY_TIMEOUT"))
        response.status_code = 408
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


class _TooLargeError(BaseException):
    """Passes through the app's own handlers."""


class _TooSlowError(BaseException):
    """The same."""


class _BoundedBody:
    """A request's messages: of the body no more than it may have, and none once it is given up."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes
        self._ended = False
        self._given_up = False
        self._reader: asyncio.Task[Any] | None = None

    async def __call__(self) -> Message:
        if self._ended:  # what comes now is that the client has gone, whenever that may be
            return await self._receive()
        if self._given_up:
            raise _TooSlowError
        self._reader = reader = asyncio.current_task()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._given_up and reader is not None and not reader.uncancel():
                raise _TooSlowError from None
            raise
        finally:
            self._reader = None
        self._ended = not message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLargeError
        return message

    def give_up(self) -> None:
        """Whoever waits for more of the body gets _TooSlowError; nothing happens when it has ended."""
        if not self._ended:
            self._given_up = True
            if self._reader is not None:
                self._reader.cancel()


class _Patience:
    """Gives bodies up after `timeout_s`. One timer serves all: one each would cost more than all else here."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._bodies: dict[_BoundedBody, float] = {}
        """With their deadlines, which come in this order."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, body: _BoundedBody) -> None:
        """From now on."""
        loop = asyncio.get_running_loop()
        deadline = self._bodies[body] = loop.time() + self.timeout_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._look, loop)

    def end(self, body: _BoundedBody) -> None:
        """Its request is over."""
        self._bodies.pop(body, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._bodies:
            body, deadline = next(iter(self._bodies.items()))
            if deadline > now:
                self._timer = loop.call_at(deadline, self._look, loop)
                return
            del self._bodies[body]
            body.give_up()


class _SendGuard:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


class RequestMetrics:
    """Counts and times requests by route; of a stream, to its last byte."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, monotonic: Monotonic) -> None:
        self._app = app
        self._metrics = metrics
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begin = self._monotonic()
        try:
            await self._app(scope, receive, observed)
        finally:
            route = route_of(scope)
            self._metrics.increment("thumbloop_gateway_requests_total", route=route, status=str(status))
            self._metrics.observe("thumbloop_gateway_request_seconds", self._monotonic() - begin, route=route)
