"""A base model without weights: deterministic log-probs and features, for tests of everything around the model.

Features are the shares of token classes in the response, so heads can truly learn from them which words users like.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Sequence

from services.reward.base_model import Answer, PassResult
from services.shared.domain import scripted_language
from services.shared.domain.rollout import ChatMessage


class ScriptedBase:
    """Passes cost microseconds; equal answers give equal results in every process."""

    digest = scripted_language.BASE_MODEL_DIGEST
    feature_layout = scripted_language.FEATURE_LAYOUT
    feature_count = scripted_language.FEATURES
    vocabulary = scripted_language.VOCABULARY
    context_tokens = 1 << 16

    def encode(self, messages: Sequence[ChatMessage], response: str) -> Answer:
        """UTF-8 bytes of the turns, each ended by a line end."""
        rendered = "".join(f"{turn.role}: {turn.content}\n" for turn in messages)
        return Answer(
            prompt_token_ids=scripted_language.encode(rendered),
            response_token_ids=scripted_language.encode(response),
        )

    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        """Log-probs from a checksum of token and position; features as shares of token classes."""
        return [
            PassResult(reference_log_probs=_log_probs(answer), features=_features(answer.response_token_ids))
            for answer in answers
        ]


def _log_probs(answer: Answer) -> tuple[float, ...]:
    """Between -2.5 and -0.5, rounded to what a 32-bit float holds."""
    raw = (zlib.crc32(b"%d/%d" % (place, token)) / 2**32 for place, token in enumerate(answer.response_token_ids))
    return tuple(struct.unpack("<f", struct.pack("<f", -0.5 - 2 * value))[0] for value in raw)


def _features(tokens: Sequence[int]) -> bytes:
    count = scripted_language.FEATURES
    classes = Counter(token % count for token in tokens)
    return struct.pack(f"<{count}e", *(classes[index] / len(tokens) for index in range(count)))
