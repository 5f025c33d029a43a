"""Server side of authentication: who may call is decided before a request is read.

The rule itself is the room's (a `CallGuard`, e.g. `services.shared.access.MethodGuard`). Health and reflection are
open: probes and newcomers hold no key, and both tell nothing of anyone's data.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from services.shared.domain.errors import ThumbloopError

OPEN_SERVICES = (health.SERVICE_NAME, reflection.SERVICE_NAME)
METADATA_KEY = "authorization"
_OPEN_PREFIXES = tuple(f"/{name}/" for name in OPEN_SERVICES)


class Caller(Protocol):
    """An admitted caller whose requests must be looked at one by one."""

    def check_request(self, request: Any, /) -> None:
        """Raises PermissionDenied for a request that the caller may not make."""


class CallGuard(Protocol):
    """Decides who may call what."""

    def admit(self, method: str, authorization: str, /) -> Caller | None:
        """None: may make any request. Raises Unauthenticated, PermissionDenied, Busy, Unavailable.

        `method` is `/package.Service/Method`; `authorization` "" where the caller presents nothing. Must not block.
        """


current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)
"""Who made the call that a servicer's method is answering; None: one that may do everything."""


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Lets in whom the guard admits, for all four kinds of calls. Raises into the `ErrorInterceptor` outside it."""

    def __init__(self, guard: CallGuard) -> None:
        self._guard = guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_PREFIXES):
            return handler
        try:
            caller = self._guard.admit(method, _authorization(handler_call_details))
        except ThumbloopError as error:
            return _refusing(handler, error)
        return handler if caller is None else _checking(handler, caller)


def _authorization(details: grpc.HandlerCallDetails) -> str:
    """The one entry of that name; several are nobody's honest call."""
    values = [value for key, value in details.invocation_metadata or () if key == METADATA_KEY]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""


def _refusing(handler: Any, error: ThumbloopError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind that refuses, without decoding what was sent."""

    async def refuse(_request: Any, _context: Any) -> Any:
        raise error

    async def refuse_stream(_request: Any, _context: Any) -> AsyncIterator[Any]:
        raise error
        yield  # makes it an iterator

    return _handler(handler, refuse, refuse_stream, decode=False)


def _checking(handler: Any, caller: Caller) -> grpc.RpcMethodHandler[Any, Any]:
    """The same handler for a caller whose requests are looked at."""
    behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    def checked(request: Any) -> Any:
        if not handler.request_streaming:
            caller.check_request(request)
            return request
        return _checked_stream(request, caller)

    async def answer(request: Any, context: Any) -> Any:
        current_caller.set(caller)
        return await behavior(checked(request), context)

    async def answer_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        current_caller.set(caller)
        responses = behavior(checked(request), context)
        if not hasattr(responses, "__aiter__"):  # writes by `context.write`
            await responses
            return
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield response

    return _handler(handler, answer, answer_stream, decode=True)


async def _checked_stream(requests: AsyncIterator[Any], caller: Caller) -> AsyncIterator[Any]:
    async for request in requests:
        caller.check_request(request)
        yield request


def _handler(like: Any, unary: Any, stream: Any, *, decode: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind with another behaviour."""
    codec = {
        "request_deserializer": like.request_deserializer if decode else None,
        "response_serializer": like.response_serializer,
    }
    if like.response_streaming:
        make = grpc.stream_stream_rpc_method_handler if like.request_streaming else grpc.unary_stream_rpc_method_handler
        return make(stream, **codec)
    make = grpc.stream_unary_rpc_method_handler if like.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(unary, **codec)
