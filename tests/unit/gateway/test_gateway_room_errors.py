"""What a room's refusal of the gateway becomes, and how often the log says so."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from services.gateway.room_errors import TELL_INTERVAL_S, RoomErrors
from services.shared.domain.errors import Busy, InvalidInput, NotFound, Unavailable


def failed(code: grpc.StatusCode, message: str = "its own words") -> grpc.RpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=message)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_refusal_is_the_operators_to_mend(code: grpc.StatusCode) -> None:
    with capture_logs() as logged:
        known = RoomErrors("generator").explained(failed(code))
    assert isinstance(known, Unavailable) and known.reason == "ROOM_REFUSED"
    assert "generator" in known.message and "its own words" not in known.message
    (line,) = logged
    assert (line["event"], line["log_level"], line["cause"]) == ("room_refused", "error", "its own words")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Busy),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
    ],
)
def test_everything_else_is_the_rooms_own_word(code: grpc.StatusCode, kind: type[Exception]) -> None:
    with capture_logs() as logged:
        known = RoomErrors("generator").explained(failed(code))
    assert type(known) is kind and known.message == "its own words"
    assert logged == []


def test_the_log_is_told_now_and_then_however_often_the_room_is_asked() -> None:
    now = 0.0
    errors = RoomErrors("learner", monotonic=lambda: now)
    with capture_logs() as logged:
        for now in (0.0, 1.0, TELL_INTERVAL_S - 1, TELL_INTERVAL_S, TELL_INTERVAL_S + 1):  # noqa: B007
            errors.explained(failed(grpc.StatusCode.UNAUTHENTICATED))
    assert len(logged) == 2
