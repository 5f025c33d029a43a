"""Server side of errors: what a servicer raises becomes a status.

A servicer raises `ThumbloopError`s and knows nothing of gRPC codes. Anything else that it raises is a fault of ours:
the caller gets INTERNAL and a word without internals, the log gets the traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from services.shared.domain.errors import ThumbloopError
from services.shared.rpc.statuses import abort_with, status_of
from services.shared.telemetry.log import get_logger

_log = get_logger()

Behavior = Callable[[Any, Any], Any]
"""A servicer's method: request (or an iterator of them) and context, to response or an iterator of them."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what servicers raise into rich statuses, for all four kinds of calls."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        return _wrapped(handler, str(handler_call_details.method))


def _wrapped(handler: Any, method: str) -> grpc.RpcMethodHandler[Any, Any]:
    """The same handler, its behaviour guarded."""
    codec = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(_guarded_unary(handler.unary_unary, method), **codec)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(_guarded_unary(handler.stream_unary, method), **codec)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(_guarded_stream(handler.unary_stream, method), **codec)
    return grpc.stream_stream_rpc_method_handler(_guarded_stream(handler.stream_stream, method), **codec)


def _guarded_unary(behavior: Behavior, method: str) -> Behavior:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, error, method)

    return guarded


def _guarded_stream(behavior: Behavior, method: str) -> Behavior:
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            responses = behavior(request, context)
            if not hasattr(responses, "__aiter__"):  # writes by `context.write`
                await responses
                return
            # Closed here, so that the servicer's `finally` runs as soon as the caller is gone.
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, error, method)

    return guarded


async def _abort(context: Any, error: Exception, method: str) -> None:
    if isinstance(error, ThumbloopError):
        if status_of(error).http_status >= 500:
            _log.warning("rpc_failed", method=method, reason=error.reason, message=error.message)
        await abort_with(context, error)
    _log.error("rpc_fault", method=method, exc_info=error)
    fault = ThumbloopError("The service made a mistake; its log says which. Trying again may help.", reason="FAULT")
    await abort_with(context, fault)
