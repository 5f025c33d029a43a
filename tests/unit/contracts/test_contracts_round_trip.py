"""What a room writes every other reads: converters there and back, and bytes that nobody wrote."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.shared.contracts.controls import decode_control, encode_control
from services.shared.contracts.feedback import decode_feedback, encode_feedback
from services.shared.contracts.policies import decode_announcement, encode_announcement
from services.shared.contracts.rollouts import decode_rollout, encode_rollout
from services.shared.contracts.scores import decode_score, encode_score
from services.shared.contracts.wire import shortest_float
from services.shared.domain.errors import Unprocessable
from tests.support import events

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

EVENTS: dict[str, tuple[st.SearchStrategy[Any], Encode, Decode]] = {
    "rollout": (events.rollouts, encode_rollout, decode_rollout),
    "feedback": (events.feedbacks, encode_feedback, decode_feedback),
    "score": (events.scores, encode_score, decode_score),
    "announcement": (events.announcements, encode_announcement, decode_announcement),
    "control": (events.controls, encode_control, decode_control),
}
every_event = pytest.mark.parametrize("name", list(EVENTS))
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@every_event
@quick
@given(data=st.data())
def test_what_is_written_is_read(name: str, data: st.DataObject) -> None:
    facts, encode, decode = EVENTS[name]
    fact = data.draw(facts)
    written = encode(fact)
    assert decode(written) == fact
    assert encode(decode(written)) == written


def read_or_refuse(decode: Decode, encode: Encode, data: bytes) -> None:
    """Any bytes are an event that can be written again, or Unprocessable with a reason and words."""
    try:
        fact = decode(data)
    except Unprocessable as error:
        assert error.reason.isupper()
        assert error.message
    else:
        if getattr(fact, "order", True) is not None:
            assert decode(encode(fact)) == fact


@every_event
@quick
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused_in_words(name: str, data: bytes) -> None:
    _, encode, decode = EVENTS[name]
    read_or_refuse(decode, encode, data)


@every_event
@settings(quick, max_examples=150)
@given(data=st.data())
def test_damaged_events_are_refused_or_whole(name: str, data: st.DataObject) -> None:
    facts, encode, decode = EVENTS[name]
    damaged = bytearray(encode(data.draw(facts)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "drop"])):
            case "flip" if damaged:
                damaged[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del damaged[position:]
            case "insert":
                damaged[position:position] = data.draw(st.binary(min_size=1, max_size=4))
            case _:
                del damaged[position : position + 1]
    read_or_refuse(decode, encode, bytes(damaged))


@given(st.floats(0, 2).map(lambda value: float(f"{value:.6g}")))
def test_a_setting_of_six_digits_comes_back_as_written(value: float) -> None:
    (on_the_wire,) = struct.unpack("<f", struct.pack("<f", value))
    back = shortest_float(on_the_wire)
    assert struct.pack("<f", back) == struct.pack("<f", value)
    if value > 1e-30:
        assert back == value
