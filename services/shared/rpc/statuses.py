"""How an error travels: one table from every `ThumbloopError` to its gRPC code and HTTP status, both ways.

A *rich status* (AIP-193) is a gRPC status whose trailing metadata hold `google.rpc.Status` with details: `ErrorInfo`
(reason, domain "thumbloop", and the error's class, since several classes share a code), `BadRequest` where a field was
wrong, `RetryInfo` where coming again makes sense. `abort_with` sends one; `error_from_rpc` turns what a client caught
back into the error that the server raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.shared.domain import errors
from services.shared.domain.errors import ThumbloopError

DOMAIN = "thumbloop"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
_CLASS_KEY = "error"
_Detail = TypeVar("_Detail", bound=Message)
_MAX_MESSAGE_CHARS = 2_000
"""Details travel in HTTP/2 headers, which peers bound at 8 KiB."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What an error is called on the two wires."""

    grpc_code: grpc.StatusCode
    http_status: int


def _status(grpc_code: grpc.StatusCode, http_status: int) -> Status:
    return Status(grpc_code=grpc_code, http_status=http_status)


STATUSES: dict[type[ThumbloopError], Status] = {
    ThumbloopError: _status(grpc.StatusCode.INTERNAL, 500),
    errors.InvalidInput: _status(grpc.StatusCode.INVALID_ARGUMENT, 400),
    # Not 501: clients in the field repeat every 5xx, and this will fail again.
    errors.NotSupported: _status(grpc.StatusCode.UNIMPLEMENTED, 400),
    errors.Unauthenticated: _status(grpc.StatusCode.UNAUTHENTICATED, 401),
    errors.PermissionDenied: _status(grpc.StatusCode.PERMISSION_DENIED, 403),
    errors.NotFound: _status(grpc.StatusCode.NOT_FOUND, 404),
    errors.Conflict: _status(grpc.StatusCode.ALREADY_EXISTS, 409),
    errors.FailedPrecondition: _status(grpc.StatusCode.FAILED_PRECONDITION, 400),
    errors.Busy: _status(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    errors.Unavailable: _status(grpc.StatusCode.UNAVAILABLE, 503),
    errors.DeadlineExceeded: _status(grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    errors.Unprocessable: _status(grpc.StatusCode.INVALID_ARGUMENT, 422),
    errors.Fenced: _status(grpc.StatusCode.ABORTED, 409),
    errors.Corrupt: _status(grpc.StatusCode.DATA_LOSS, 500),
    errors.Misconfigured: _status(grpc.StatusCode.INTERNAL, 500),
}

_CLASSES = {cls.__name__: cls for cls in STATUSES}

_CLASSES_BY_CODE: dict[grpc.StatusCode, type[ThumbloopError]] = {
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.UNKNOWN: ThumbloopError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotSupported,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Busy,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.ABORTED: errors.Fenced,
    grpc.StatusCode.DATA_LOSS: errors.Corrupt,
    grpc.StatusCode.INTERNAL: ThumbloopError,
}
"""For peers that send a bare code: the transport itself, or a foreign server."""


class Abortable(Protocol):
    """The part of `grpc.aio.ServicerContext` that ends a call."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, bytes], ...] = ()
    ) -> NoReturn:
        """Ends the call; never returns."""


def status_of(error: ThumbloopError) -> Status:
    """The entry of the error's class, else of its nearest base."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def status_proto(error: ThumbloopError) -> status_pb2.Status:
    """The rich status of an error."""
    status = status_pb2.Status(code=status_of(error).grpc_code.value[0], message=error.message[:_MAX_MESSAGE_CHARS])
    known = next(cls for cls in type(error).__mro__ if cls in STATUSES)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={_CLASS_KEY: known.__name__})
    status.details.add().Pack(info)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=status.message, reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(max(error.retry_after, 0.0) * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


async def abort_with(context: Abortable, error: ThumbloopError) -> NoReturn:
    """Ends a call with the error's rich status."""
    status = status_proto(error)
    await context.abort(
        status_of(error).grpc_code,
        status.message,
        trailing_metadata=((STATUS_DETAILS_KEY, status.SerializeToString()),),
    )


def error_from_rpc(error: grpc.RpcError) -> ThumbloopError:
    """The error that the server raised, from what a client (aio or sync) caught.

    A peer that sent no details is read by its code alone: UNAVAILABLE (nobody listens) becomes `Unavailable`, and so
    on; the code's name is then the reason.
    """
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    message = (error.details() if hasattr(error, "details") else "") or str(code)
    details = _details(error.trailing_metadata() if hasattr(error, "trailing_metadata") else ())
    info = _unpack(details, error_details_pb2.ErrorInfo)
    if info is None or info.domain != DOMAIN:
        return _CLASSES_BY_CODE.get(code, ThumbloopError)(message, reason=code.name)
    bad_request = _unpack(details, error_details_pb2.BadRequest)
    retry = _unpack(details, error_details_pb2.RetryInfo)
    cls = _CLASSES.get(info.metadata.get(_CLASS_KEY, ""), _CLASSES_BY_CODE.get(code, ThumbloopError))
    return cls(
        message,
        reason=info.reason,
        field=bad_request.field_violations[0].field if bad_request and bad_request.field_violations else "",
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
    )


def _details(metadata: Iterable[Any] | None) -> list[any_pb2.Any]:
    value = next((value for key, value in metadata or () if key == STATUS_DETAILS_KEY), None)
    if not isinstance(value, bytes):
        return []
    try:
        return list(status_pb2.Status.FromString(value).details)
    except DecodeError:
        return []


def _unpack(details: list[any_pb2.Any], kind: type[_Detail]) -> _Detail | None:
    for detail in details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None
