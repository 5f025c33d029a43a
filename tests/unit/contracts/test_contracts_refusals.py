"""Each rule of the events is broken once, by a room that writes and by bytes that arrive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.generator.v1 import rollout_pb2
from thumbloop.learner.v1 import control_pb2, policy_pb2
from thumbloop.reward.v1 import score_pb2

from services.shared.contracts.controls import decode_control, encode_control
from services.shared.contracts.feedback import MAX_EDIT_CHARS, decode_feedback, encode_feedback, feedback_to_proto
from services.shared.contracts.policies import announcement_to_proto, decode_announcement, encode_announcement
from services.shared.contracts.rollouts import decode_rollout, encode_rollout, rollout_to_proto
from services.shared.contracts.scores import decode_score, encode_score, score_to_proto
from services.shared.contracts.topics import load_topic_pages
from services.shared.domain.control import Control
from services.shared.domain.errors import InvalidInput, Unprocessable
from services.shared.domain.feedback import Comparison, Edit, Feedback, FeedbackKind, Rating
from services.shared.domain.release import Announcement
from services.shared.domain.rollout import ChatMessage, KvHistory, Role, Rollout
from services.shared.domain.score import Score

_PAGES = load_topic_pages()


def _example(topic: str, message: Any) -> bytes:
    encoded: bytes = json_format.Parse(_PAGES[topic].example, message).SerializeToString()
    return encoded


ROLLOUT: Rollout = decode_rollout(_example("rollouts", rollout_pb2.Rollout()))
FEEDBACK: Feedback = decode_feedback(_example("feedback", feedback_pb2.Feedback()))
SCORE: Score = decode_score(_example("scores", score_pb2.Score()))
ANNOUNCEMENT: Announcement = decode_announcement(_example("policies", policy_pb2.PolicyAnnouncement()))
CONTROL: Control = decode_control(_example("controls", control_pb2.Control()))

BROKEN_ROLLOUTS: list[tuple[str, dict[str, Any]]] = [
    ("SCHEMA_VERSION", {"meta": replace(ROLLOUT.meta, schema_version=7)}),
    ("MISSING_FIELD", {"meta": replace(ROLLOUT.meta, event_id="")}),
    ("NAIVE_TIME", {"meta": replace(ROLLOUT.meta, event_time=datetime(2026, 1, 1))}),
    ("MISSING_FIELD", {"rollout_id": ""}),
    ("MISSING_FIELD", {"messages": ()}),
    ("TEXT_TOO_LARGE", {"messages": (ChatMessage(role=Role.USER, content="x" * 400_001),)}),
    ("BAD_TEXT", {"messages": (ChatMessage(role=Role.USER, content="\ud83d"),)}),
    ("LENGTH_MISMATCH", {"behaviour_log_probs": (-1.0, -1.0)}),
    ("LENGTH_MISMATCH", {"raw_log_probs": (-1.0,)}),
    ("NOT_FINITE", {"behaviour_log_probs": (-1.0, math.nan, -1.0)}),
    ("NOT_FINITE", {"behaviour_log_probs": (-1.0, -math.inf, -1.0)}),
    ("NOT_FINITE", {"behaviour_log_probs": (-1.0, -1e300, -1.0)}),
    ("POSITIVE_LOG_PROB", {"behaviour_log_probs": (-1.0, 0.7, -1.0)}),
    ("BAD_SPANS", {"spans": ()}),
    ("BAD_SPANS", {"spans": ROLLOUT.spans[:1]}),
    ("BAD_SPANS", {"spans": ROLLOUT.spans[1:]}),
    ("BAD_SPANS", {"spans": (ROLLOUT.spans[0], replace(ROLLOUT.spans[1], begin=1))}),
    ("BAD_SPANS", {"spans": (ROLLOUT.spans[0], replace(ROLLOUT.spans[1], end=2))}),
    ("BAD_SPANS", {"spans": (ROLLOUT.spans[0], replace(ROLLOUT.spans[1], kv_history=KvHistory.FRESH))}),
    ("OUT_OF_RANGE", {"response_token_ids": (1, -2, 3)}),
    ("OUT_OF_RANGE", {"sampling": replace(ROLLOUT.sampling, temperature=2.5)}),
    ("OUT_OF_RANGE", {"sampling": replace(ROLLOUT.sampling, top_p=0.0)}),
    ("OUT_OF_RANGE", {"sampling": replace(ROLLOUT.sampling, max_tokens=0)}),
    ("TOO_MANY_ITEMS", {"sampling": replace(ROLLOUT.sampling, stop=("a", "b", "c", "d", "e"))}),
    ("MISSING_FIELD", {"first_token_time": None}),
]
BROKEN_FEEDBACK: list[tuple[str, dict[str, Any]]] = [
    ("MISSING_FIELD", {"feedback_id": ""}),
    ("MISSING_BODY", {"body": None}),
    ("KIND_MISMATCH", {"kind": FeedbackKind.RATING}),
    ("OUT_OF_RANGE", {"kind": FeedbackKind.RATING, "body": Rating(stars=6)}),
    ("OUT_OF_RANGE", {"revision": 2**63}),
    (
        "SELF_COMPARISON",
        {"kind": FeedbackKind.COMPARISON, "body": Comparison(rejected_rollout_id=FEEDBACK.rollout_id)},
    ),
    ("TEXT_TOO_LARGE", {"kind": FeedbackKind.EDIT, "body": Edit(text="x" * (MAX_EDIT_CHARS + 1))}),
]
BROKEN_SCORES: list[tuple[str, dict[str, Any]]] = [
    ("OUT_OF_RANGE", {"mean": 1.5}),
    ("NOT_FINITE", {"spread": math.nan}),
    ("NOT_FINITE", {"terms": (("thumb", math.inf),)}),
    ("DUPLICATE_TERM", {"terms": (("thumb", 0.5), ("thumb", 0.25))}),
    ("NOT_FINITE", {"features": b"\x00\x7c"}),
    ("LENGTH_MISMATCH", {"features": b"\x00"}),
    ("MISSING_FIELD", {"feature_layout": ""}),
]
BROKEN_ANNOUNCEMENTS: list[tuple[str, dict[str, Any]]] = [
    ("BAD_PATH", {"checkpoint_path": "../elsewhere"}),
    ("BAD_PATH", {"checkpoint_path": "/etc"}),
    ("BAD_DIGEST", {"manifest_sha256": "abc"}),
    ("OUT_OF_RANGE", {"epoch": -1}),
    ("MISSING_FIELD", {"version": ""}),
]
CASES = [
    *((encode_rollout, ROLLOUT, reason, changes) for reason, changes in BROKEN_ROLLOUTS),
    *((encode_feedback, FEEDBACK, reason, changes) for reason, changes in BROKEN_FEEDBACK),
    *((encode_score, SCORE, reason, changes) for reason, changes in BROKEN_SCORES),
    *((encode_announcement, ANNOUNCEMENT, reason, changes) for reason, changes in BROKEN_ANNOUNCEMENTS),
    (encode_control, CONTROL, "MISSING_ORDER", {"order": None}),
]


@pytest.mark.parametrize(("encode", "fact", "reason", "changes"), CASES)
def test_no_room_writes_what_none_would_read(
    encode: Callable[[Any], bytes], fact: Any, reason: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode(replace(fact, **changes))
    assert caught.value.reason == reason


def _alter(message: Any, change: Callable[[Any], object]) -> bytes:
    change(message)
    encoded: bytes = message.SerializeToString()
    return encoded


def _set(name: str, value: Any) -> Callable[[Any], object]:
    return lambda message: setattr(message, name, value)


def _clear(name: str) -> Callable[[Any], object]:
    return lambda message: message.ClearField(name)


ARRIVALS: list[tuple[Callable[[bytes], Any], Any, str, Callable[[Any], object]]] = [
    (decode_rollout, rollout_to_proto(ROLLOUT), "MISSING_META", _clear("meta")),
    (decode_rollout, rollout_to_proto(ROLLOUT), "MISSING_FIELD", _clear("sampling")),
    (decode_rollout, rollout_to_proto(ROLLOUT), "MISSING_FIELD", _clear("end_time")),
    (decode_rollout, rollout_to_proto(ROLLOUT), "UNKNOWN_ENUM", _set("purpose", 99)),
    (decode_rollout, rollout_to_proto(ROLLOUT), "UNKNOWN_ENUM", _clear("finish_reason")),
    (decode_rollout, rollout_to_proto(ROLLOUT), "SCHEMA_VERSION", lambda m: setattr(m.meta, "schema_version", 2)),
    (decode_rollout, rollout_to_proto(ROLLOUT), "SCHEMA_VERSION", lambda m: setattr(m.meta, "schema_version", 0)),
    (decode_rollout, rollout_to_proto(ROLLOUT), "BAD_TIME", lambda m: setattr(m.end_time, "seconds", 2**60)),
    (decode_rollout, rollout_to_proto(ROLLOUT), "LENGTH_MISMATCH", lambda m: m.behaviour_log_probs.pop()),
    (decode_rollout, rollout_to_proto(ROLLOUT), "NOT_FINITE", lambda m: m.raw_log_probs.extend([math.nan] * 3)),
    (decode_rollout, rollout_to_proto(ROLLOUT), "BAD_SPANS", lambda m: m.spans.pop()),
    (decode_feedback, feedback_to_proto(FEEDBACK), "MISSING_BODY", _clear("thumb")),
    (decode_feedback, feedback_to_proto(FEEDBACK), "UNKNOWN_ENUM", lambda m: setattr(m.thumb, "direction", 0)),
    (decode_feedback, feedback_to_proto(FEEDBACK), "BAD_DIGEST", lambda m: setattr(m.thumb, "direction", 2)),
    (decode_feedback, feedback_to_proto(FEEDBACK), "MISSING_FIELD", _clear("accept_time")),
    (decode_score, score_to_proto(SCORE), "NOT_FINITE", _set("mean", math.nan)),
    (decode_announcement, announcement_to_proto(ANNOUNCEMENT), "BAD_PATH", _set("checkpoint_path", "policy/../../x")),
    (decode_announcement, announcement_to_proto(ANNOUNCEMENT), "UNKNOWN_ENUM", _clear("kind")),
]


@pytest.mark.parametrize(("decode", "message", "reason", "change"), ARRIVALS)
def test_what_arrives_broken_is_unprocessable(
    decode: Callable[[bytes], Any], message: Any, reason: str, change: Callable[[Any], object]
) -> None:
    altered = type(message)()
    altered.CopyFrom(message)
    with pytest.raises(Unprocessable) as caught:
        decode(_alter(altered, change))
    assert caught.value.reason == reason
    assert caught.value.message


def test_bytes_of_another_kind_are_no_event() -> None:
    with pytest.raises(Unprocessable) as caught:
        decode_rollout(b"\xff\xff\xff not protobuf")
    assert caught.value.reason == "NOT_PROTOBUF"


def test_an_order_of_a_later_release_is_read_as_unknown() -> None:
    later = control_pb2.Control()
    json_format.Parse(_PAGES["controls"].example, later)
    later.ClearField("forget")
    field_99_length_delimited = b"\x9a\x06\x00"
    control = decode_control(later.SerializeToString() + field_99_length_delimited)
    assert control.order is None
    assert control.control_id == CONTROL.control_id


def test_a_response_without_tokens_is_a_rollout() -> None:
    empty = replace(
        ROLLOUT,
        response_token_ids=(),
        behaviour_log_probs=(),
        spans=(),
        first_token_time=None,
        end_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert decode_rollout(encode_rollout(empty)) == empty
