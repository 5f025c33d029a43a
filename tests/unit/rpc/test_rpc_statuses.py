from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.shared.domain import errors
from services.shared.domain.errors import ThumbloopError
from services.shared.rpc.statuses import (
    DOMAIN,
    STATUS_DETAILS_KEY,
    STATUSES,
    abort_with,
    error_from_rpc,
    status_of,
    status_proto,
)


def all_errors() -> list[type[ThumbloopError]]:
    found = [ThumbloopError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == errors.__name__]


class AbortedError(Exception):
    pass


class RecordingContext:
    """Keeps what a call was ended with."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.details = ""
        self.trailing: tuple[tuple[str, bytes], ...] = ()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, bytes], ...] = ()
    ) -> NoReturn:
        self.code, self.details, self.trailing = code, details, trailing_metadata
        raise AbortedError


def as_client_sees(context: RecordingContext) -> grpc.RpcError:
    trailing = grpc.aio.Metadata(*context.trailing)
    return grpc.aio.AioRpcError(context.code, grpc.aio.Metadata(), trailing, context.details)


def test_every_error_has_an_entry_and_no_entry_is_of_another_tree() -> None:
    assert set(STATUSES) == set(all_errors())
    assert len(STATUSES) == 15


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
async def test_each_error_comes_back_as_itself(cls: type[ThumbloopError]) -> None:
    sent = cls("Messages are empty; send one.", field="messages[0].content", retry_after=1.25, reason="EMPTY")
    context = RecordingContext()
    with pytest.raises(AbortedError):
        await abort_with(context, sent)
    got = error_from_rpc(as_client_sees(context))
    assert context.code is STATUSES[cls].grpc_code
    assert type(got) is cls
    assert (got.message, got.reason, got.field, got.retry_after) == (sent.message, "EMPTY", sent.field, 1.25)


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_statuses_are_errors_on_both_wires(cls: type[ThumbloopError]) -> None:
    assert 400 <= STATUSES[cls].http_status < 600
    assert STATUSES[cls].grpc_code is not grpc.StatusCode.OK


def test_an_error_of_a_room_takes_the_entry_of_its_base() -> None:
    class TokenExpired(errors.Unauthenticated):
        reason = "TOKEN_EXPIRED"

    assert status_of(TokenExpired("old")).http_status == 401
    status = status_proto(TokenExpired("old"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, info.metadata["error"]) == ("TOKEN_EXPIRED", DOMAIN, "Unauthenticated")


def test_details_are_only_those_that_say_something() -> None:
    assert len(status_proto(errors.NotFound("no")).details) == 1
    assert len(status_proto(errors.Busy("full", retry_after=0)).details) == 2


def test_a_very_long_message_still_fits_a_header() -> None:
    sent = errors.InvalidInput("x" * 100_000, field="messages")
    assert status_proto(sent).ByteSize() < 8_000


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotSupported),
        (grpc.StatusCode.INTERNAL, ThumbloopError),
    ],
)
def test_a_bare_code_is_read_by_itself(code: grpc.StatusCode, cls: type[ThumbloopError]) -> None:
    got = error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused"))
    assert type(got) is cls
    assert got.reason == code.name
    assert "connection refused" in got.message


def foreign(details: bytes) -> Any:
    trailing = grpc.aio.Metadata((STATUS_DETAILS_KEY, details))
    return grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "gone")


def test_details_of_a_foreign_domain_or_garbage_do_not_choose_the_class() -> None:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="X", domain="elsewhere", metadata={"error": "Busy"}))
    assert type(error_from_rpc(foreign(status_pb2.Status(details=[info]).SerializeToString()))) is errors.NotFound
    assert type(error_from_rpc(foreign(b"\xff\xff\xff"))) is errors.NotFound


def test_every_code_but_ok_has_a_class() -> None:
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            error = error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), ""))
            assert error.message
