"""The step between bytes and messages, the same for every event."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.shared.domain.errors import InvalidInput, Unprocessable

MessageT = TypeVar("MessageT", bound=Message)
FactT = TypeVar("FactT")
DomainT = TypeVar("DomainT", bound=StrEnum)
ValueT = TypeVar("ValueT", bound=int)
ValueT_co = TypeVar("ValueT_co", bound=int, covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400


def encode(fact: FactT, to_proto: Callable[[FactT], Message]) -> bytes:
    """Bytes of an event, the same for the same fact. Raises InvalidInput for a fact that no reader would take."""
    return to_proto(fact).SerializeToString(deterministic=True)


def decode(data: bytes, message_type: type[MessageT], from_proto: Callable[[MessageT], FactT]) -> FactT:
    """The fact in an event's bytes. Raises Unprocessable, with the broken rule's reason, for everything else."""
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise Unprocessable(f"These {len(data)} bytes are no {name}: {error}", reason="NOT_PROTOBUF") from error
    try:
        return from_proto(message)
    except InvalidInput as error:
        raise Unprocessable(error.message, reason=error.reason, field=error.field) from error


def time_to_proto(field: str, value: datetime) -> Timestamp:
    """A Timestamp, to the microsecond."""
    if value.tzinfo is None:
        raise InvalidInput(f"{field} has no time zone; give it in UTC.", reason="NAIVE_TIME", field=field)
    since = value - _EPOCH
    return Timestamp(seconds=since.days * _DAY_S + since.seconds, nanos=since.microseconds * 1000)


def time_from_proto(field: str, stamp: Timestamp) -> datetime:
    """UTC, cut to the microsecond. Raises InvalidInput outside the years 1 to 9999."""
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{field} is no time: {error}", reason="BAD_TIME", field=field) from error


def shortest_float(value: float) -> float:
    """The shortest decimal number that has the same single-precision form: 1.2, where the wire gives 1.2000000477.

    Settings of people (a temperature) are compared with bounds of people; they come back as they were written.
    """
    packed = struct.pack("<f", value)
    for digits in range(6, 9):
        candidate = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", candidate) == packed:
                return candidate
        except OverflowError:
            continue
    return value


class ProtoEnum(Protocol[ValueT_co]):
    """What a generated enum class offers."""

    def Value(self, name: str) -> ValueT_co:
        """The number of a name."""


class EnumMap(Generic[DomainT, ValueT]):
    """A domain enum and its protobuf twin, whose names differ by a prefix alone."""

    def __init__(self, domain: type[DomainT], proto: ProtoEnum[ValueT], prefix: str) -> None:
        self._to_proto = {member: proto.Value(f"{prefix}_{member.name}") for member in domain}
        self._from_proto = {value: member for member, value in self._to_proto.items()}

    def to_proto(self, member: DomainT) -> ValueT:
        """The wire's number."""
        return self._to_proto[member]

    def from_proto(self, value: ValueT, field: str) -> DomainT:
        """The domain's member. Raises InvalidInput for 0 (unspecified) and for numbers that are not known here."""
        member = self._from_proto.get(value)
        if member is None:
            known = ", ".join(f"{name.name}={number}" for name, number in self._to_proto.items())
            raise InvalidInput(f"{field} is {value}; known are {known}.", reason="UNKNOWN_ENUM", field=field)
        return member
