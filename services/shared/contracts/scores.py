"""Scores, to and from the wire."""

from __future__ import annotations

import math
import struct

from thumbloop.reward.v1 import score_pb2

from services.shared.contracts.checks import check_count, check_id, check_log_probs, check_number, check_short
from services.shared.contracts.meta import meta_from_proto, meta_to_proto
from services.shared.contracts.wire import decode, encode, shortest_float
from services.shared.domain.errors import InvalidInput
from services.shared.domain.score import Score

MAX_TERMS = 64
MAX_TERM = 1e6
"""Thumb units; far beyond any sensible addend."""
PROBABILITY_SLACK = 1e-6
"""Single precision may put a probability this far outside 0 to 1."""


def encode_score(score: Score) -> bytes:
    """Event bytes. Raises InvalidInput for a score that `check_score` refuses."""
    return encode(score, score_to_proto)


def decode_score(data: bytes) -> Score:
    """The score in an event. Raises Unprocessable with the broken rule's reason."""
    return decode(data, score_pb2.Score, score_from_proto)


def check_score(score: Score) -> None:
    """Raises InvalidInput unless all numbers are finite, probabilities are some, and features have a layout."""
    check_id("rollout_id", score.rollout_id)
    check_id("reward_model_version", score.reward_model_version)
    check_short("base_model_digest", score.base_model_digest)
    check_short("feature_layout", score.feature_layout)
    check_number("mean", score.mean, least=-PROBABILITY_SLACK, most=1 + PROBABILITY_SLACK)
    check_number("spread", score.spread, least=0, most=1)
    check_number("temperature", score.temperature, least=0, most=2)
    check_log_probs("reference_log_probs", score.reference_log_probs)
    check_count("terms", score.terms, MAX_TERMS)
    names = [name for name, _ in score.terms]
    if len(set(names)) != len(names):
        raise InvalidInput("terms has one name twice; names must differ.", reason="DUPLICATE_TERM", field="terms")
    for name, value in score.terms:
        check_id("terms.name", name)
        check_number("terms.value", value, least=-MAX_TERM, most=MAX_TERM)
    _check_features(score.features, score.feature_layout)


def _check_features(features: bytes, layout: str) -> None:
    if not features:
        return
    if not layout:
        raise InvalidInput("features need a feature_layout.", reason="MISSING_FIELD", field="feature_layout")
    if len(features) % 2:
        raise InvalidInput(
            f"features has {len(features)} bytes; fp16 values take two each.",
            reason="LENGTH_MISMATCH",
            field="features",
        )
    if not all(map(math.isfinite, struct.unpack(f"<{len(features) // 2}e", features))):
        raise InvalidInput("features holds a value that is not finite.", reason="NOT_FINITE", field="features")


def score_to_proto(score: Score) -> score_pb2.Score:
    """Raises InvalidInput as `check_score` does."""
    check_score(score)
    return score_pb2.Score(
        meta=meta_to_proto(score.meta),
        rollout_id=score.rollout_id,
        reward_model_version=score.reward_model_version,
        mean=score.mean,
        spread=score.spread,
        terms=[score_pb2.RewardTerm(name=name, value=value) for name, value in score.terms],
        reference_log_probs=score.reference_log_probs,
        temperature=score.temperature,
        base_model_digest=score.base_model_digest,
        features=score.features,
        feature_layout=score.feature_layout,
    )


def score_from_proto(message: score_pb2.Score) -> Score:
    """Raises InvalidInput as `check_score` does."""
    score = Score(
        meta=meta_from_proto(message.meta, present=message.HasField("meta")),
        rollout_id=message.rollout_id,
        reward_model_version=message.reward_model_version,
        mean=message.mean,
        spread=message.spread,
        terms=tuple((term.name, term.value) for term in message.terms),
        reference_log_probs=tuple(message.reference_log_probs),
        temperature=shortest_float(message.temperature),
        base_model_digest=message.base_model_digest,
        features=message.features,
        feature_layout=message.feature_layout,
    )
    check_score(score)
    return score
