"""What happens to every request: a bound on its body, and its metrics. Plain ASGI, so that streams pass untouched."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.chat.choice import Monotonic
from services.gateway.errors import error_response
from services.shared.domain.errors import InvalidInput
from services.shared.telemetry.metrics import Metrics

UNMATCHED = "unmatched"


class BodyLimit:
    """Refuses bodies of more than `max_bytes`, declared or not, before they fill the memory.

    The server gives no more of a body than was declared, so only those that come in chunks are counted.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        if b"content-length" in headers and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        counted = _CountedBody(receive, self._max_bytes)
        guard = _SendGuard(send)
        try:
            await self._app(scope, counted, guard)
        except _TooLargeError:
            if not guard.started:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"The body is larger than {self._max_bytes} bytes. Shorten the conversation."
        response = error_response(InvalidInput(message, reason="BODY_TOO_LARGE"))
        response.status_code = 413
        await response(scope, receive, send)


class _TooLargeError(BaseException):
    """Passes through the app's own handlers."""


class _CountedBody:
    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _TooLargeError
        return message


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
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._metrics.increment("thumbloop_gateway_requests_total", route=route, status=str(status))
            self._metrics.observe("thumbloop_gateway_request_seconds", self._monotonic() - begin, route=route)
