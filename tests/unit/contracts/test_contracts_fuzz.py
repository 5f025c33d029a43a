"""Bytes that nobody meant to write, at every decoder and at ingest's reader: a value or a typed reason, never a crash.

Beside random bytes and damaged events (`test_contracts_round_trip.py`), mutations that know protobuf: fields of a real
event repeated, dropped, given another wire type or an extreme value, two events joined into one, events of another
kind, nesting without end, and events that were cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.internal import decoder, encoder
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.learner.ingest.decoding import TOPICS, read
from services.shared.bus.interface import Place, Record
from services.shared.contracts.controls import decode_control, encode_control
from services.shared.contracts.feedback import decode_feedback, encode_feedback
from services.shared.contracts.policies import decode_announcement, encode_announcement
from services.shared.contracts.rollouts import decode_rollout, encode_rollout
from services.shared.contracts.scores import decode_score, encode_score
from services.shared.domain.errors import Unprocessable
from services.shared.ids import utc_now
from tests.support import events

EVENTS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "rollout": (events.rollouts, encode_rollout, decode_rollout),
    "feedback": (events.feedbacks, encode_feedback, decode_feedback),
    "score": (events.scores, encode_score, decode_score),
    "announcement": (events.announcements, encode_announcement, decode_announcement),
    "control": (events.controls, encode_control, decode_control),
}
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
EXTREMES = [0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1]
Field = tuple[int, int, bytes]
"""Number, wire type, the bytes of the value (of a delimited one without its length)."""


def varint(value: int) -> bytes:
    pieces: list[bytes] = []
    encoder._EncodeVarint(pieces.append, value, False)  # type: ignore[attr-defined]  # protobuf's own, unannounced
    return b"".join(pieces)


def split(data: bytes) -> list[Field]:
    """The fields of a message as they stand on the wire."""
    fields: list[Field] = []
    position = 0
    while position < len(data):
        tag, position = decoder._DecodeVarint(data, position)  # type: ignore[attr-defined]  # see varint
        begin = position
        if tag & 7 == VARINT:
            _, position = decoder._DecodeVarint(data, position)  # type: ignore[attr-defined]  # see varint
        elif tag & 7 == DELIMITED:
            size, begin = decoder._DecodeVarint(data, position)  # type: ignore[attr-defined]  # see varint
            position = begin + size
        else:
            position += 8 if tag & 7 == FIXED64 else 4
        fields.append((tag >> 3, tag & 7, data[begin:position]))
    return fields


def join(fields: list[Field]) -> bytes:
    return b"".join(
        varint(number << 3 | wire) + (varint(len(value)) if wire == DELIMITED else b"") + value
        for number, wire, value in fields
    )


def mutate(draw: st.DrawFn, data: bytes, depth: int = 0) -> bytes:
    """One mutation that leaves well-formed protobuf, at any depth."""
    fields = split(data)
    if not fields:
        return data
    index = draw(st.integers(0, len(fields) - 1))
    number, wire, value = fields[index]
    match draw(st.sampled_from(["drop", "repeat", "extreme", "retype", "renumber", "empty", "noise", "deeper"])):
        case "drop":
            del fields[index]
        case "repeat":
            fields += [fields[index]] * draw(st.integers(1, 5))
        case "extreme" if wire == VARINT:
            fields[index] = (number, wire, varint(draw(st.sampled_from(EXTREMES))))
        case "extreme" if wire in (FIXED32, FIXED64):
            patterns = [b"\x00", b"\xff", b"\x7f", b"\x80"]
            size = 4 if wire == FIXED32 else 8
            fields[index] = (number, wire, draw(st.sampled_from(patterns)) * size)
        case "retype":
            other = draw(st.sampled_from([(VARINT, b"\x07"), (DELIMITED, b"abc"), (FIXED32, b"\xff" * 4)]))
            fields[index] = (number, *other)
        case "renumber":
            fields[index] = (draw(st.integers(1, 40)), wire, value)
        case "empty" if wire == DELIMITED:
            fields[index] = (number, wire, b"")
        case "noise" if wire == DELIMITED:
            fields[index] = (number, wire, draw(st.binary(max_size=40)))
        case "deeper" if wire == DELIMITED and depth < 3:
            try:
                fields[index] = (number, wire, mutate(draw, value, depth + 1))
            except (DecodeError, IndexError, ValueError):  # a text, no message
                fields[index] = (number, wire, value[::-1])
    return join(fields)


@st.composite
def hostile(draw: st.DrawFn, name: str) -> bytes:
    facts, encode, _ = EVENTS[name]
    match draw(st.sampled_from(["mutated", "joined", "foreign", "nested", "cut", "bytes"])):
        case "mutated":
            data = encode(draw(facts))
            for _ in range(draw(st.integers(1, 3))):
                data = mutate(draw, data)
            return data
        case "joined":
            return encode(draw(facts)) + encode(draw(facts))
        case "foreign":
            other, write, _ = EVENTS[draw(st.sampled_from(sorted(EVENTS)))]
            return write(draw(other))
        case "nested":
            data = b""
            for _ in range(draw(st.integers(1, 200))):
                data = join([(draw(st.integers(1, 20)), DELIMITED, data)])
            return data
        case "cut":
            data = encode(draw(facts))
            return data[: draw(st.integers(0, len(data)))]
    return draw(st.binary(max_size=400))


def refused_in_words(error: Unprocessable) -> bool:
    return error.reason.isupper() and bool(error.message)


@pytest.mark.parametrize("name", list(EVENTS))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_decoder_gives_a_value_or_a_typed_reason(name: str, data: st.DataObject) -> None:
    _, encode, decode = EVENTS[name]
    content = data.draw(hostile(name))
    try:
        fact = decode(content)
    except Unprocessable as error:
        assert refused_in_words(error)
        return
    if getattr(fact, "order", True) is not None:  # a control of a later release is read, but not written
        assert decode(encode(fact)) == fact


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    topic=st.sampled_from(TOPICS),
    content=st.sampled_from(["rollout", "feedback", "score"]).flatmap(hostile),
    deployment=st.sampled_from(["prod", "staging"]),
)
def test_ingests_reader_never_raises(topic: str, content: bytes, deployment: str) -> None:
    record = Record(place=Place(topic, 0), offset=7, key="k", value=content, headers={}, timestamp=utc_now())
    found = read(record, deployment=deployment)
    assert (found.fact is None) != (found.error is None)
    assert found.event_id
    if found.error is not None:
        assert refused_in_words(found.error)
    else:
        assert found.fact is not None and found.fact.meta.deployment == deployment
